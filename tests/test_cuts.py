"""Cuts: the largest part is nearly as small as it can be, and little crosses."""

from itertools import combinations, pairwise
from random import Random

import pytest

from pocketdiffusion.export.families.parts.cuts import SLACK, choose_cuts


def largest(weights: list[int], places: tuple[int, ...]) -> int:
    return max(sum(weights[first:last]) for first, last in pairwise((0, *places, len(weights))))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
def test_no_other_cuts_are_better(count: int) -> None:
    """All of nine steps are tried."""
    random = Random(count)
    for _ in range(20):
        weights = [random.choice((1, 5, 20, 21)) for _ in range(9)]
        across = [random.randint(1, 99) for _ in range(10)]
        found = tuple(choose_cuts(weights, across, count))
        every = list(combinations(range(1, 9), count - 1))
        least = min(largest(weights, each) for each in every)
        assert found in every and largest(weights, found) <= SLACK * least
        equal = [each for each in every if largest(weights, each) <= SLACK * least]
        assert sum(across[p] for p in found) == min(sum(across[p] for p in each) for each in equal)


def test_a_cut_moves_where_less_crosses() -> None:
    weights = [100, 100, 2, 100, 100]
    assert choose_cuts(weights, [0, 9, 9, 5, 9, 0], 2) == [3]
    assert choose_cuts(weights, [0, 9, 5, 9, 9, 0], 2) == [2]
    assert choose_cuts(weights, [0, 1, 5, 9, 9, 0], 2) == [2]  # not where nearly nothing crosses, at a quarter
