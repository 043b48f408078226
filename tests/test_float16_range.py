"""The range audit's own arithmetic."""

import numpy as np
import pytest

from pocketdiffusion.quantize.float16_range import HALF_MAX, Found, Range, by_magnitude, underflow, update_largest
from pocketdiffusion.quantize.islands import islands


def test_the_largest_of_all_runs_is_kept() -> None:
    found: Found = {}
    for largest in (1.0, 3.0, 2.0):
        update_largest(found, "Add", "a", largest)
    update_largest(found, "Mul", "b", 40000.0)
    assert by_magnitude(found) == [Range("Mul", "b", 40000.0), Range("Add", "a", 3.0)]


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_what_is_not_finite_stays_so_and_comes_first(bad: float) -> None:
    found: Found = {}
    for largest in (1.0, bad, 2.0):
        update_largest(found, "Add", "a", largest)
    update_largest(found, "Mul", "b", 1e9)
    first, second = by_magnitude(found)
    assert first.result == "a" and not np.isfinite(first.largest) and not first.fits and not second.fits


def test_a_result_fits_with_room_for_other_prompts() -> None:
    assert Range("Add", "a", HALF_MAX / 4).fits
    assert not Range("Add", "a", HALF_MAX / 3.9).fits


def test_a_weight_below_float16_is_found() -> None:
    weight = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    assert underflow("w", weight) is None
    assert underflow("w", np.zeros((4, 4), np.float32)) is None
    tiny = underflow("w", weight * np.float32(1e-8))
    assert tiny is not None and tiny.name == "w" and 0.9 < tiny.lost < 1 and tiny.relative > 0.5
    subnormal = underflow("w", weight * np.float32(1e-5))
    assert subnormal is not None and subnormal.lost < 0.02 and 1e-3 < subnormal.relative < 1e-2


def test_an_island_gives_or_takes_what_does_not_fit() -> None:
    operations = [(["a"], ["in"]), (["b"], ["a"]), (["c"], ["b", "d"]), (["d"], ["in"])]
    ranges = [Range("conv", "a", 1e6), Range("norm", "b", 1.0), Range("add", "c", 1.0), Range("conv", "d", 1.0)]
    assert islands(operations, ranges) == ("a", "b")
    assert islands(operations, ranges[1:]) == ()
