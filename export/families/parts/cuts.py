"""Where to cut a sequence into parts of nearly equal weight. Nothing here needs torch."""

from collections.abc import Callable, Sequence
from itertools import accumulate

SLACK = 1.05  # the largest part may be that much larger than it must be, for fewer bytes across the cuts


def choose_cuts(weights: Sequence[int], across: Sequence[int], count: int) -> list[int]:
    """Return the places of `count` - 1 cuts, ascending; place n is before step n. Each part has a step.

    `weights` are those of the steps, `across` the sizes of what crosses a cut at each place. Of all cuts whose largest
    part is at most `SLACK` times the least possible one, the result has the least across.
    """
    before = [0, *accumulate(weights)]

    def weight(first: int, last: int) -> float:
        return before[last] - before[first]

    least, _ = _best(len(weights), count, weight, max)

    def size(first: int, last: int) -> float:
        within = weight(first, last) <= SLACK * least
        return (across[first] if first else 0) if within else float("inf")

    _, places = _best(len(weights), count, size, lambda one, other: one + other)
    return places


def _best(
    steps: int, count: int, cost: Callable[[int, int], float], join: Callable[[float, float], float]
) -> tuple[float, list[int]]:
    """Return the least cost of all ways to cut `steps` steps into `count` parts, and the places of its cuts. The cost
    of a part from `first` to `last` is `cost(first, last)`, and `join` adds a part's to that of the parts before."""
    best: list[tuple[float, list[int]]] = [(cost(0, last), []) for last in range(steps + 1)]
    for parts in range(2, count + 1):
        best = [
            min(
                (
                    (join(best[first][0], cost(first, last)), [*best[first][1], first])
                    for first in range(parts - 1, last)
                ),
                default=(float("inf"), []),
            )
            for last in range(steps + 1)
        ]
    return best[steps]
