"""The best mixed recipe of every size: which storage to give each weight, so that all damages together are the least.

Damages of single weights add up, as far as they are small. To choose one of a few storages for each weight under a
number of bytes is the multiple-choice knapsack problem, solved here by dynamic programming: `least[n]` of the first
weights follows from that of all but the last. One pass solves it for every size at once. Sizes are counted in
portions, of a byte where the model is small enough, and what is chosen is checked byte by byte.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from pocketdiffusion.quantize.scheme import Scheme

PORTIONS = 2**16  # that the largest recipe is counted in
Item = tuple[str, str]  # component, weight


@dataclass(frozen=True)
class Option:
    """One way to store a weight: its bytes, and the damage that it does alone, weighed between components; NaN where it
    leaves nothing that can be measured, and then it is not chosen."""

    scheme: Scheme
    nbytes: int
    damage: float


@dataclass(frozen=True)
class Frontier:
    """`least[n]` is the least damage in `n` portions of `portion` bytes, infinite where nothing is so small;
    `chosen[i, n]` is the option of the weight `i` that it takes when the weights from 0 to `i` share `n` portions."""

    options: Mapping[Item, Sequence[Option]]
    portion: int
    least: NDArray[np.float64]
    chosen: NDArray[np.uint8]

    def within(self, budget: int) -> dict[Item, Option] | None:
        """The recipe with the least damage of at most `budget` bytes, None where there is none. More bytes never do
        more damage."""
        rounded = budget // self.portion + len(self.options)  # rounding errs by half a portion a weight
        for portions in range(min(rounded, len(self.least) - 1), -1, -1):
            if self.least[portions] == np.inf:
                break
            plan = self._plan(portions)
            if total_bytes(plan) <= budget:
                return plan
        known = {item: [o for o in options if isfinite(o.damage)] for item, options in self.options.items()}
        if not all(known.values()):
            return None
        smallest = {item: min(options, key=lambda o: (o.nbytes, o.damage)) for item, options in known.items()}
        return smallest if total_bytes(smallest) <= budget else None

    def under(self, damage: float) -> dict[Item, Option] | None:
        """The smallest recipe that does at most `damage`, None where none does so little."""
        enough = np.flatnonzero(self.least <= damage)
        return self._plan(int(enough[0])) if len(enough) else None

    def _plan(self, portions: int) -> dict[Item, Option]:
        plan: dict[Item, Option] = {}
        for number, item in reversed(list(enumerate(self.options))):
            option = self.options[item][self.chosen[number, portions]]
            plan[item] = option
            portions -= _portions(option, self.portion)
        return dict(reversed(plan.items()))


def solve(options: Mapping[Item, Sequence[Option]]) -> Frontier:
    """The best recipe of every size. At most 256 options a weight."""
    largest = sum(max(option.nbytes for option in each) for each in options.values())
    portion = -(-largest // PORTIONS) or 1
    cells = sum(max(_portions(option, portion) for option in each) for each in options.values()) + 1
    least = np.zeros(cells)
    chosen = np.zeros((len(options), cells), np.uint8)
    for number, each in enumerate(options.values()):
        following = np.full(cells, np.inf)
        for index, option in enumerate(each):
            taken = _portions(option, portion)
            damage = least[: cells - taken] + option.damage
            better = damage < following[taken:]
            following[taken:][better] = damage[better]
            chosen[number, taken:][better] = index
        least = following
    return Frontier(options, portion, least, chosen)


def total_bytes(plan: Mapping[Item, Option]) -> int:
    """Of all weights together."""
    return sum(option.nbytes for option in plan.values())


def total_damage(plan: Mapping[Item, Option]) -> float:
    """As far as damages add up."""
    return sum(option.damage for option in plan.values())


def _portions(option: Option, portion: int) -> int:
    return (2 * option.nbytes + portion) // (2 * portion)
