"""The integers that stand for an activation: code = round(x / scale) + zero, a signed number of `bits`."""

from dataclasses import dataclass

BITS = {"int8": 8, "int16": 16}


@dataclass(frozen=True)
class Span:
    """The range that integers of an activation stand for, `low` <= 0 <= `high`."""

    low: float
    high: float


def affine(span: Span, bits: int) -> tuple[float, int]:
    """Scale and zero of signed integers of `bits` that reach from `low` to `high`; zero itself is one of them, for
    padding is made of zeros."""
    lowest, levels = -(2 ** (bits - 1)), 2**bits - 1
    scale = (span.high - span.low) / levels or 1.0
    return scale, max(lowest, min(lowest + levels, round(lowest - span.low / scale)))
