"""Integers for activations: which they are."""

import numpy as np
import pytest

from pocketdiffusion.quantize.qparams import Span, affine

SPANS = [Span(-1, 1), Span(-3.2, 7.7), Span(0, 0.001), Span(-2e-6, 3e-6), Span(-500, 2), Span(-6e4, 6e4), Span(0, 0)]


@pytest.mark.parametrize("span", SPANS, ids=str)
@pytest.mark.parametrize("bits", [8, 16])
def test_both_ends_and_zero_have_integers(span: Span, bits: int) -> None:
    scale, zero = affine(span, bits)
    lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    assert lowest <= zero <= highest
    for end in (span.low, span.high):
        code = round(end / scale) + zero
        assert lowest - 1 <= code <= highest + 1  # of two ends and a zero one is rounded
        assert abs((min(max(code, lowest), highest) - zero) * scale - end) <= scale


@pytest.mark.parametrize("span", SPANS, ids=str)
def test_a_scale_of_8_bits_is_float16s(span: Span) -> None:
    """The next one, so that no end is cut off."""
    scale, _ = affine(span, 8)
    exact = (span.high - span.low) / 255 or 1.0
    assert float(np.float16(scale)) == scale >= exact > float(np.nextafter(np.float16(scale), np.float16(0)))


def test_a_span_beyond_float16_keeps_its_scale() -> None:
    assert affine(Span(-1e8, 1e8), 8)[0] == 2e8 / 255
