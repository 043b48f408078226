"""The check that a file can store the values of a weight."""

import numpy as np
from numpy.typing import NDArray

from pocketdiffusion.quantize.float16_range import HALF_MAX
from pocketdiffusion.quantize.scheme import FLOAT32, Scheme
from pocketdiffusion.runtime.errors import ProofError


def check_storable(name: str, weight: NDArray[np.float32], scheme: Scheme) -> None:
    """Raise ProofError if a value of `weight` is not finite, or exceeds 65504 and `scheme` is not float32."""
    largest = float(max(weight.max(initial=0), -weight.min(initial=0)))  # no copy of the weight; both are NaN for a NaN
    if not np.isfinite(largest):
        raise ProofError(f"weight {name} has values that are not finite: download the checkpoint again")
    if scheme != FLOAT32 and largest > HALF_MAX:
        raise ProofError(
            f"weight {name} has the value {largest:g}, over {HALF_MAX:g}, the largest float16: use --recipe fp32"
        )
