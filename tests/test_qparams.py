"""Integers for activations: which they are."""

import numpy as np
import pytest

from pocketdiffusion.quantize.qparams import ValueRange, affine

RANGES = [
    ValueRange(-1, 1),
    ValueRange(-3.2, 7.7),
    ValueRange(0, 0.001),
    ValueRange(-2e-6, 3e-6),
    ValueRange(-500, 2),
    ValueRange(-6e4, 6e4),
    ValueRange(0, 0),
]


@pytest.mark.parametrize("value_range", RANGES, ids=str)
@pytest.mark.parametrize("bits", [8, 16])
def test_both_ends_and_zero_have_integers(value_range: ValueRange, bits: int) -> None:
    scale, zero = affine(value_range, bits)
    lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    assert lowest <= zero <= highest
    for end in (value_range.low, value_range.high):
        code = round(end / scale) + zero
        assert lowest - 1 <= code <= highest + 1  # of two ends and a zero one is rounded
        assert abs((min(max(code, lowest), highest) - zero) * scale - end) <= scale


@pytest.mark.parametrize("value_range", RANGES, ids=str)
def test_a_scale_of_8_bits_is_float16s(value_range: ValueRange) -> None:
    """The next one, so that no end is cut off."""
    scale, _ = affine(value_range, 8)
    exact = (value_range.high - value_range.low) / 255 or 1.0
    assert float(np.float16(scale)) == scale >= exact > float(np.nextafter(np.float16(scale), np.float16(0)))


def test_a_span_beyond_float16_keeps_its_scale() -> None:
    assert affine(ValueRange(-1e8, 1e8), 8)[0] == 2e8 / 255
