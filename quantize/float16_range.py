"""The range audit: how near the results of a graph come to the end of float16, and which weights fall below it.

The largest finite float16 is 65504; a result beyond it becomes an infinity, and a few operators later the picture is
black. Its smallest normal number is 2^-14: a weight below loses digits, and below 2^-25 it becomes zero.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HALF_MAX = 65504.0
HEADROOM = 4.0  # other prompts, other seeds: results are kept this far from the end
ROUNDED = 1e-3  # relative error of a weight: rounding to float16 costs 2.8e-4 at most where no value is lost

Note = Callable[[str, str, float], None]  # operator, result, largest magnitude
Found = dict[tuple[str, str], float]  # the largest magnitude so far, by operator and result


@dataclass(frozen=True)
class Range:
    """`largest` is the largest magnitude of a result over all runs, infinite or NaN where the result was not finite."""

    operator: str
    result: str
    largest: float

    @property
    def fits(self) -> bool:
        """Return whether float16 holds it with room for other prompts."""
        return self.largest <= HALF_MAX / HEADROOM

    def describe(self) -> str:
        """Return one line for a person."""
        return f"{self.operator} ({self.result}) comes to {self.largest:.3g}, where float16 ends at {HALF_MAX:g}"


def widen(found: Found, operator: str, result: str, largest: float) -> None:
    """Note one result of one run in `found`. A magnitude that is not finite stays so."""
    before = found.get((operator, result), 0.0)
    found[operator, result] = before if before >= largest or before != before else largest


def closest(found: Found) -> list[Range]:
    """Return all results, the one nearest to the end of float16 first."""
    ranges = [Range(operator, result, largest) for (operator, result), largest in found.items()]
    return sorted(ranges, key=lambda r: (-np.nan_to_num(r.largest, nan=np.inf), r.result))


@dataclass(frozen=True)
class Underflow:
    """A weight that float16 stores badly. `lost` is the share of its values that become zero without being zero;
    `relative` the norm of the error over the norm of the weight."""

    name: str
    lost: float
    relative: float


def underflow(name: str, weight: NDArray[np.float32]) -> Underflow | None:
    """Return the loss of a weight in float16, None where it is no more than rounding."""
    half = weight.astype(np.float16).astype(np.float32)
    norm = float(np.linalg.norm(weight))
    relative = float(np.linalg.norm(weight - half)) / norm if norm else 0.0
    lost = float(np.mean((half == 0) & (weight != 0))) if weight.size else 0.0
    return Underflow(name, lost, relative) if relative > ROUNDED else None
