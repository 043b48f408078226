"""The best mixed recipe of every size: a storage for each weight, so that the sum of all errors is minimal.

Errors of single weights add up while they are small. Choosing one storage for each weight within a number of bytes is
the multiple-choice knapsack problem, solved here by dynamic programming: `least[n]` of the first weights is computed
from `least[n]` of all of these but the last. One pass solves it for every size. Sizes are counted in portions of one
byte or more; the chosen plan's size is then checked in bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from pocketdiffusion.quantize.scheme import Scheme

PORTIONS = 2**16  # the size of the largest recipe in portions
Item = tuple[str, str]  # component, weight


@dataclass(frozen=True)
class Option:
    """One way to store a weight: its bytes, and the mean squared error of pictures that its sensitivity predicts. An
    option whose error is NaN could not be measured and is never chosen."""

    scheme: Scheme
    nbytes: int
    error: float


@dataclass(frozen=True)
class Frontier:
    """`least[n]`: the least error within `n` portions of `portion` bytes, infinite if no recipe is so small.
    `chosen[i, n]`: the option of weight `i` if the weights 0 to `i` share `n` portions."""

    options: Mapping[Item, Sequence[Option]]
    portion: int
    least: NDArray[np.float64]
    chosen: NDArray[np.uint8]

    def within(self, budget: int) -> dict[Item, Option] | None:
        """Return the recipe of at most `budget` bytes with the least error, None if there is none. A larger budget
        never has a larger error."""
        rounded = budget // self.portion + len(self.options)  # rounding errs by half a portion a weight
        for portions in range(min(rounded, len(self.least) - 1), -1, -1):
            if self.least[portions] == np.inf:
                break
            plan = self._plan(portions)
            if total_bytes(plan) <= budget:
                return plan
        known = {item: [o for o in options if isfinite(o.error)] for item, options in self.options.items()}
        if not all(known.values()):
            return None
        smallest = {item: min(options, key=lambda o: (o.nbytes, o.error)) for item, options in known.items()}
        return smallest if total_bytes(smallest) <= budget else None

    def under(self, error: float) -> dict[Item, Option] | None:
        """Return the smallest recipe whose error is at most `error`, None if there is none."""
        enough = np.flatnonzero(self.least <= error)
        return self._plan(int(enough[0])) if len(enough) else None

    def _plan(self, portions: int) -> dict[Item, Option]:
        plan: dict[Item, Option] = {}
        for number, item in reversed(list(enumerate(self.options))):
            option = self.options[item][self.chosen[number, portions]]
            plan[item] = option
            portions -= _portions(option, self.portion)
        return dict(reversed(plan.items()))


def solve(options: Mapping[Item, Sequence[Option]]) -> Frontier:
    """Return the best recipe of every size. `options`: at most 256 for each weight."""
    largest = sum(max(option.nbytes for option in each) for each in options.values())
    portion = -(-largest // PORTIONS) or 1
    cells = sum(max(_portions(option, portion) for option in each) for each in options.values()) + 1
    least = np.zeros(cells)
    chosen = np.zeros((len(options), cells), np.uint8)
    for number, each in enumerate(options.values()):
        following = np.full(cells, np.inf)
        for index, option in enumerate(each):
            taken = _portions(option, portion)
            error = least[: cells - taken] + option.error
            better = error < following[taken:]
            following[taken:][better] = error[better]
            chosen[number, taken:][better] = index
        least = following
    return Frontier(options, portion, least, chosen)


def total_bytes(plan: Mapping[Item, Option]) -> int:
    """Return the stored size of all weights in bytes."""
    return sum(option.nbytes for option in plan.values())


def total_error(plan: Mapping[Item, Option]) -> float:
    """Return the sum of the errors of all weights: mean squared error of pictures, while errors are small."""
    return sum(option.error for option in plan.values())


def _portions(option: Option, portion: int) -> int:
    return (2 * option.nbytes + portion) // (2 * portion)
