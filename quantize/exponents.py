"""Powers of two that bring the results of a graph into float16 without changing its outputs.

A result with the exponent e is stored as 2^-e times itself. A convolution can have any exponents of its input and its
output, because its weights can be scaled by their difference. A sum needs one exponent for all of its terms. A
normalisation can have any exponent of its input, because its result does not depend on the scale of the input. Other
nonlinear operators allow no exponent. Results that must have the same exponent form one class, and the largest result
of a class decides.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil, log2, sqrt

from pocketdiffusion.quantize.float16_range import HALF_MAX, HEADROOM
from pocketdiffusion.runtime.errors import ProofError


@dataclass(frozen=True)
class Flow:
    """The results of a graph. `largest`: the largest magnitude of each. `ties`: pairs of results that must have the
    same exponent. `fixed`: results that must have the exponent 0. `squared`: results whose square a normalisation
    computes."""

    largest: Mapping[str, float]
    ties: Iterable[tuple[str, str]]
    fixed: frozenset[str]
    squared: frozenset[str]


def exponents(flow: Flow) -> dict[str, int]:
    """Return the least exponent of each result whose class needs one (above 0). Raises ProofError, with the result's
    name, if a result whose exponent must be 0 exceeds float16."""
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
            raise ProofError(
                f"{name} has the value {largest:.3g}, beyond float16, and cannot be scaled: use --recipe fp32"
            )
    return {name: needed[root(name)] for name in flow.largest if needed[root(name)] and root(name) not in held}


def _exponent(largest: float, *, squared: bool) -> int:
    limit = sqrt(HALF_MAX / HEADROOM) if squared else HALF_MAX / HEADROOM
    return max(0, ceil(log2(largest / limit))) if largest else 0
