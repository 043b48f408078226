"""Search for values that are not finite: on which side of a comparison NaN or infinity is, and at which index."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketdiffusion.runtime.bundle.verdicts import NotFinite


def find_not_finite(what: str, reference: NDArray[Any], candidate: NDArray[Any]) -> NotFinite | None:
    """Return the first NaN or infinity of `reference` or `candidate`, None if all values are finite. `what` names the
    tensors in the result. The shapes may differ."""
    first, second = first_not_finite(reference), first_not_finite(candidate)
    if first is not None:
        return NotFinite(what, "reference" if second is None else "both", first)
    return None if second is None else NotFinite(what, "candidate", second)


def first_not_finite(x: NDArray[Any]) -> tuple[int, ...] | None:
    """Return the index of the first NaN or infinity in C order, None where there is none."""
    bad = ~np.isfinite(x)
    if not bad.any():
        return None
    return tuple(int(i) for i in np.unravel_index(int(bad.argmax()), x.shape))


def largest(arrays: Iterable[NDArray[Any]]) -> float:
    """Return the largest absolute value among the finite values, 0 if there is none: the peak of PSNR."""
    return max((float(np.abs(x, where=np.isfinite(x), out=np.zeros_like(x)).max(initial=0)) for x in arrays), default=0)
