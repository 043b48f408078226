"""Nearest upsampling to a given size, by operators that every format has, and by torch's own rule.

A UNet whose size does not halve down to the last block comes up again to sizes that are no whole multiple, such as 9 to
17. There the formats differ from torch, which takes element floor(i * in / out): litert-torch's operator looks from
the middle of the pixels, and coremltools' scale is rounded. A repetition of elements, cut to size, is the same in all.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional


def upsample_nearest(
    x: Tensor, output_size: Sequence[int] | None, scale_factors: Sequence[float] | None = None
) -> Tensor:
    """x [batch, channels, height, width] to `output_size`, as torch.ops.aten.upsample_nearest2d.vec has it.

    Whole multiples stay that operator, and so does a size that is given by `scale_factors`.
    """
    if output_size is None:
        return torch.ops.aten.upsample_nearest2d.vec(x, None, scale_factors)  # type: ignore[no-any-return]
    sizes = [int(size) for size in output_size]
    found = [int(size) for size in x.shape[-2:]]
    if all(size % own == 0 for size, own in zip(sizes, found, strict=True)):
        return torch.ops.aten.upsample_nearest2d.vec(x, sizes, None)  # type: ignore[no-any-return]
    chosen = [nearest_indices(own, size) for own, size in zip(found, sizes, strict=True)]
    factors = [-(-size // own) for size, own in zip(sizes, found, strict=True)]
    if all(np.array_equal(c, np.arange(len(c)) // f) for c, f in zip(chosen, factors, strict=True)):
        repeated = torch.ops.aten.upsample_nearest2d.vec(
            x, [f * own for f, own in zip(factors, found, strict=True)], None
        )
        cut: Tensor = repeated[:, :, : sizes[0], : sizes[1]]
        return cut
    for axis, indices in zip((-2, -1), chosen, strict=True):
        x = x.index_select(axis, torch.from_numpy(indices))
    return x


def interpolate(input: Tensor, size: Sequence[int] | int | None = None, *args: object, **options: object) -> Tensor:
    """As torch.nn.functional.interpolate; nearest upsampling of pictures to a given size is `upsample_nearest`."""
    if size is None or input.ndim != 4 or (args, options.get("mode", "nearest")) != ((), "nearest"):
        return functional.interpolate(input, size, *args, **options)  # type: ignore[arg-type]
    return upsample_nearest(input, [size, size] if isinstance(size, int) else size)


def nearest_indices(found: int, wanted: int) -> NDArray[np.int64]:
    """The element of `found` that each of `wanted` takes, by torch's arithmetic in float32
    (aten/src/ATen/native/UpSample.h, `nearest_neighbor_compute_source_index`)."""
    scale = np.float32(found) / np.float32(wanted)
    return np.minimum((np.arange(wanted, dtype=np.float32) * scale).astype(np.int64), found - 1)
