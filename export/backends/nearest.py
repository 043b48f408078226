"""Nearest upsampling to a given size, by operators that every format has, and by torch's own rule.

A UNet whose size cannot be halved at every block upsamples to sizes that are not integer multiples, such as 9 to 17.
There the formats differ from torch, which reads element floor(i * in / out): litert-torch's operator counts from the
centres of the pixels, and coremltools' scale is rounded. Repeated elements, cut to size, are the same in all formats.
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
    """Return `x` [batch, channels, height, width] upsampled to `output_size` (height, width), with the values of
    torch.ops.aten.upsample_nearest2d.vec.

    Integer multiples, and sizes given by `scale_factors`, are computed by that operator itself.
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
    """Return torch.nn.functional.interpolate's result; nearest upsampling to a given size uses `upsample_nearest`."""
    if size is None or input.ndim != 4 or (args, options.get("mode", "nearest")) != ((), "nearest"):
        return functional.interpolate(input, size, *args, **options)  # type: ignore[arg-type]
    return upsample_nearest(input, [size, size] if isinstance(size, int) else size)


def nearest_indices(found: int, wanted: int) -> NDArray[np.int64]:
    """Return, for each of `wanted` output elements, the index 0..`found` - 1 of its source, in torch's float32
    arithmetic (aten/src/ATen/native/UpSample.h, `nearest_neighbor_compute_source_index`)."""
    scale = np.float32(found) / np.float32(wanted)
    return np.minimum((np.arange(wanted, dtype=np.float32) * scale).astype(np.int64), found - 1)
