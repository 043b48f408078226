"""Powers of two that bring the results of a graph into float16 without changing what it computes.

A result with the exponent e is held as 2^-e times itself. A convolution takes any exponent in and gives any out, by
its weights; a sum wants the same of all its terms; a normalisation takes any, for its result does not depend on the
size of what it is given; what is not linear wants none. Results that must have the same exponent are one class, and
the largest result of a class decides.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil, log2, sqrt

from pocketdiffusion.quantize.float16_range import HALF_MAX, HEADROOM
from pocketdiffusion.runtime.errors import ProofError


@dataclass(frozen=True)
class Flow:
    """`largest` has the magnitude of each result. `ties` are pairs of results of one exponent; those in `fixed` have
    none; of those in `squared`, a normalisation computes the square."""

    largest: Mapping[str, float]
    ties: Iterable[tuple[str, str]]
    fixed: frozenset[str]
    squared: frozenset[str]


def exponents(flow: Flow) -> dict[str, int]:
    """Return the least exponent of each result whose class needs one. Raises ProofError, naming the result, where one
    that must have none is beyond float16."""
    parent = {name: name for name in flow.largest}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for one, other in flow.ties:
        parent[root(one)] = root(other)
    needed: dict[str, int] = {}
    for name, largest in flow.largest.items():
        needed[root(name)] = max(needed.get(root(name), 0), _exponent(largest, squared=name in flow.squared))
    held = {root(name) for name in flow.fixed}
    for name, largest in flow.largest.items():
        if root(name) in held and largest > HALF_MAX:
            raise ProofError(f"{name} comes to {largest:.3g}, and what is computed of it is not linear")
    return {name: needed[root(name)] for name in flow.largest if needed[root(name)] and root(name) not in held}


def _exponent(largest: float, *, squared: bool) -> int:
    limit = sqrt(HALF_MAX / HEADROOM) if squared else HALF_MAX / HEADROOM
    return max(0, ceil(log2(largest / limit))) if largest else 0
