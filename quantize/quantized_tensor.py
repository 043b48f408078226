"""A weight as an artifact stores it: quantized values and their scales or tables. Every backend writes these numbers.

Scales and tables are rounded to float16 before the quantized values are chosen, so that formats that store them in
float16 have the same error.
"""

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from pocketdiffusion.quantize.kmeans import nearest, palette
from pocketdiffusion.quantize.scheme import Scheme

_SHRINK = np.linspace(1, 0.5, 26)  # factors of a scale, tried below 8 bits: outliers are clipped for finer steps


@dataclass(frozen=True)
class Plain:
    """A weight in float32 or float16."""

    values: NDArray[np.float32 | np.float16]


@dataclass(frozen=True)
class Linear:
    """value = quantized * scale. `quantized`: int8 in the weight's shape, from -(2^(bits-1) - 1) to 2^(bits-1) - 1.
    `scale`: float32 of the weight's rank, [out, 1, ...], or [out, blocks, 1, ...] if blocks of axis 1 have their own
    scales."""

    quantized: NDArray[np.int8]
    scale: NDArray[np.float32]
    bits: int


@dataclass(frozen=True)
class Palette:
    """value = table[group of the output channel, quantized]. `quantized`: uint8 in the weight's shape. `table`:
    float32 [groups, 2^bits], ascending."""

    quantized: NDArray[np.uint8]
    table: NDArray[np.float32]
    bits: int


Stored = Plain | Linear | Palette


def store(weight: NDArray[np.float32], scheme: Scheme) -> Stored:
    """Return `weight` (float32, finite, of rank 2 or more) quantized by `scheme`.

    If the block size does not divide the input channels, one block is the complete axis. If the group size does not
    divide the output channels, one group is the complete tensor.
    """
    if scheme.kind == "float":
        return Plain(weight.astype(np.float16) if scheme.bits == 16 else weight)
    if scheme.kind == "palette":
        return _palette(weight, scheme.bits, scheme.group)
    return _linear(weight, scheme.bits, scheme.group)


def restore(stored: Stored) -> NDArray[np.float32]:
    """Return the dequantized weight, float32."""
    if isinstance(stored, Plain):
        return stored.values.astype(np.float32)
    if isinstance(stored, Linear):
        blocks = stored.scale.shape[1]
        spread = np.repeat(stored.scale, stored.quantized.shape[1] // blocks, 1) if blocks > 1 else stored.scale
        return stored.quantized * spread
    groups = len(stored.table)
    quantized = stored.quantized.reshape(groups, -1)
    return np.take_along_axis(stored.table, quantized.astype(np.int64), 1).reshape(stored.quantized.shape)


def nbytes(shape: tuple[int, ...], scheme: Scheme) -> int:
    """Return the size in bytes of a weight in a file, with its scales (counted as two bytes each) or tables."""
    size: int = prod(shape)
    if scheme.kind == "float":
        return size * scheme.bits // 8
    packed = -(-size * scheme.bits // 8)
    if scheme.kind == "palette":
        return packed + 2 * _groups(shape, scheme.group) * (1 << scheme.bits)
    return packed + 2 * shape[0] * _blocks(shape, scheme.group)


def _blocks(shape: tuple[int, ...], block: int) -> int:
    return shape[1] // block if block and shape[1] % block == 0 else 1


def _groups(shape: tuple[int, ...], group: int) -> int:
    return shape[0] // group if group and shape[0] % group == 0 else 1


def _linear(weight: NDArray[np.float32], bits: int, block: int) -> Linear:
    out, blocks = weight.shape[0], _blocks(weight.shape, block)
    rows = weight.reshape(out, blocks, -1)
    top = 2 ** (bits - 1) - 1
    full = np.abs(rows).max(2, keepdims=True) / top
    best = _half(full)
    if bits < 8:  # few levels: use the scale with the least squared error
        least = _squared_error(rows, best, top)
        for shrink in _SHRINK[1:]:
            scale = _half(full * shrink)
            error = _squared_error(rows, scale, top)
            best, least = np.where(error < least, scale, best), np.minimum(error, least)
    quantized = _quantize(rows, best, top).astype(np.int8).reshape(weight.shape)
    return Linear(quantized, best.reshape(out, blocks, *[1] * (weight.ndim - 2)), bits)


def _half(scale: NDArray[np.float32]) -> NDArray[np.float32]:
    return scale.astype(np.float16).astype(np.float32)


def _quantize(rows: NDArray[np.float32], scale: NDArray[np.float32], top: int) -> NDArray[np.float32]:
    safe = np.where(scale > 0, scale, 1)  # a channel whose scale float16 cannot hold is zero
    return np.where(scale > 0, np.clip(np.rint(rows / safe), -top, top), 0)


def _squared_error(rows: NDArray[np.float32], scale: NDArray[np.float32], top: int) -> NDArray[np.float32]:
    error: NDArray[np.float32] = np.square(_quantize(rows, scale, top) * scale - rows).sum(2, keepdims=True)
    return error


def _palette(weight: NDArray[np.float32], bits: int, group: int) -> Palette:
    groups = _groups(weight.shape, group)
    rows = weight.reshape(groups, -1)
    tables = np.stack([_half(palette(row, 2**bits)) for row in rows])
    quantized = np.stack([nearest(row, table) for row, table in zip(rows, tables, strict=True)])
    return Palette(quantized.reshape(weight.shape), tables, bits)
