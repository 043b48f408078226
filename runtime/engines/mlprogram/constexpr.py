"""Operators of ML programs that decompress weights: palettes, and integers with scales.

Numbers of less than a byte arrive one in a byte, except the indices of iOS 16's `constexpr_lut_to_dense`.

Source: https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html, constexpr_ops of iOS 16
and of iOS 18.
"""

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np

from pocketdiffusion.runtime.engines.mlprogram.constants import unpack
from pocketdiffusion.runtime.runner import Array


def affine_dequantize(quantized_data: Array, zero_point: Array, scale: Array, axis: Any) -> Array:
    """Return scale * (data - zero_point) in float32. `scale` and `zero_point` are numbers, or have one number for each
    index of `axis`."""
    shape = [1] * quantized_data.ndim
    shape[int(axis)] = -1
    offset, factor = (v.astype(np.float32).reshape(shape) if v.ndim else np.float32(v) for v in (zero_point, scale))
    return np.asarray((quantized_data.astype(np.float32) - offset) * factor)


def blockwise_shift_scale(data: Array, scale: Array, offset: Array | None = None) -> Array:
    """Return scale * (data - offset) in float32. `scale` and `offset` have as many axes as `data`, and one number for
    each block along each axis."""
    value = data.astype(np.float32)
    value = value if offset is None else value - _spread(offset.astype(np.float32), data.shape)
    return value * _spread(scale, data.shape)


def lut_to_dense(indices: Array, lut: Array, shape: Any = None, vector_axis: Any = None) -> Array:
    """Return the palette's entry for each index.

    iOS 16: `shape` is given, `lut` has one axis, and `indices` is a stream of bits. iOS 18: `lut` is [groups of each
    axis..., entries, vector], with a palette for each group of the tensor, and an index selects a vector along
    `vector_axis`.
    """
    if shape is not None:
        sizes = [int(size) for size in shape]
        bits = int(lut.size).bit_length() - 1
        return np.asarray(lut[unpack(indices.view(np.uint8), bits, prod(sizes))].reshape(sizes))
    *groups, entries, length = lut.shape
    palette = np.arange(prod(groups)).reshape(groups)
    flat = lut.reshape(-1, length)
    value = flat[_spread(palette, indices.shape) * entries + indices]
    if length == 1:
        return np.asarray(value[..., 0])
    axis = int(vector_axis) % indices.ndim
    sizes = list(indices.shape)
    sizes[axis] *= length
    return np.asarray(np.moveaxis(value, -1, axis + 1).reshape(sizes))


def _spread(blocks: Array, shape: tuple[int, ...]) -> Array:
    """Repeat numbers of blocks along each axis until they broadcast to `shape`."""
    for axis, size in enumerate(shape):
        if blocks.shape[axis] not in (1, size):
            blocks = np.repeat(blocks, size // blocks.shape[axis], axis)
    return blocks


OPERATORS: Mapping[str, Callable[..., Any]] = {
    "constexpr_affine_dequantize": affine_dequantize,
    "constexpr_blockwise_shift_scale": blockwise_shift_scale,
    "constexpr_lut_to_dense": lut_to_dense,
}
