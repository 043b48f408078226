"""The range audit: how close the results of a graph come to the largest float16, and which weights are too small for
it.

The largest finite float16 is 65504; a larger result becomes infinite, and a few operators later the picture is black.
The smallest normal number is 2^-14: smaller weights lose digits, and below 2^-25 they become zero.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HALF_MAX = 65504.0
HEADROOM = 4.0  # results stay below HALF_MAX / HEADROOM: other prompts and seeds have larger ones
ROUNDED = 1e-3  # relative error of a weight; rounding to float16 has at most 2.8e-4 if no value underflows

Note = Callable[[str, str, float], None]  # operator, result, largest magnitude
Found = dict[tuple[str, str], float]  # the largest magnitude so far, by operator and result


@dataclass(frozen=True)
class Range:
    """The largest magnitude of a result over all runs; infinite or NaN if the result was not finite."""

    operator: str
    result: str
    largest: float

    @property
    def fits(self) -> bool:
        """Return True if float16 can hold the result, with room for other prompts."""
        return self.largest <= HALF_MAX / HEADROOM

    def describe(self) -> str:
        """Return one line for a person; it is written into bundles."""
        return f"{self.operator} ({self.result}) comes to {self.largest:.3g}, where float16 ends at {HALF_MAX:g}"


def update_largest(found: Found, operator: str, result: str, largest: float) -> None:
    """Update the largest magnitude of one result in `found`. A magnitude that is not finite stays."""
    before = found.get((operator, result), 0.0)
    found[operator, result] = before if before >= largest or before != before else largest


def by_magnitude(found: Found) -> list[Range]:
    """Return all results, the largest magnitude first."""
    ranges = [Range(operator, result, largest) for (operator, result), largest in found.items()]
    return sorted(ranges, key=lambda r: (-np.nan_to_num(r.largest, nan=np.inf), r.result))


@dataclass(frozen=True)
class Underflow:
    """A weight that float16 stores badly. `lost`: share (0..1) of its values that are not zero and become zero.
    `relative`: norm of the error over norm of the weight."""

    name: str
    lost: float
    relative: float


def underflow(name: str, weight: NDArray[np.float32]) -> Underflow | None:
    """Return the loss of a weight in float16, None if its relative error is at most ROUNDED."""
    half = weight.astype(np.float16).astype(np.float32)
    norm = float(np.linalg.norm(weight))
    relative = float(np.linalg.norm(weight - half)) / norm if norm else 0.0
    lost = float(np.mean((half == 0) & (weight != 0))) if weight.size else 0.0
    return Underflow(name, lost, relative) if relative > ROUNDED else None
