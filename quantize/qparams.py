"""The integers that stand for an activation: code = round(x / scale) + zero, a signed number of `bits`."""

from dataclasses import dataclass

import numpy as np

from pocketdiffusion.quantize.float16_range import HALF_MAX

BITS = {"int8": 8, "int16": 16}


@dataclass(frozen=True)
class Span:
    """The range that integers of an activation stand for, `low` <= 0 <= `high`."""

    low: float
    high: float


def affine(span: Span, bits: int) -> tuple[float, int]:
    """Scale and zero of signed integers of `bits` that reach from `low` to `high`; zero itself is one of them, for
    padding is made of zeros. A scale of 8 bits is rounded up to float16, so that every format can have the same."""
    lowest, levels = -(2 ** (bits - 1)), 2**bits - 1
    scale = (span.high - span.low) / levels or 1.0
    if bits == 8 and scale <= HALF_MAX:
        half = np.float16(scale)
        scale = float(half if float(half) >= scale else np.nextafter(half, np.float16(np.inf)))
    return scale, max(lowest, min(lowest + levels, round(lowest - span.low / scale)))
