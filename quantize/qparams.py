"""Affine quantization of activations: quantized = round(x / scale) + zero point, signed, of `bits` bits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pocketdiffusion.quantize.float16_range import HALF_MAX

BITS = {"int8": 8, "int16": 16}


@dataclass(frozen=True)
class ValueRange:
    """The value range of an activation's integers, `low` <= 0 <= `high`."""

    low: float
    high: float


class Ranges(NamedTuple):
    """The value ranges of the inputs and outputs of a component's operators, by the names of their weights."""

    inputs: Mapping[str, ValueRange]
    outputs: Mapping[str, ValueRange]


def affine(value_range: ValueRange, bits: int) -> tuple[float, int]:
    """Return scale and zero point of signed integers of `bits` that cover `value_range`.

    0.0 is exactly representable, because padding consists of zeros. The scale for 8 bits is rounded up to float16, so
    that every format can use the same one.
    """
    lowest, levels = -(2 ** (bits - 1)), 2**bits - 1
    scale = (value_range.high - value_range.low) / levels or 1.0
    if bits == 8 and scale <= HALF_MAX:
        half = np.float16(scale)
        scale = float(half if float(half) >= scale else np.nextafter(half, np.float16(np.inf)))
    return scale, max(lowest, min(lowest + levels, round(lowest - value_range.low / scale)))
