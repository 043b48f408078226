"""What a weight must be for a file to store it."""

import numpy as np
from numpy.typing import NDArray

from pocketdiffusion.quantize.float16_range import HALF_MAX
from pocketdiffusion.quantize.scheme import FLOAT32, Scheme
from pocketdiffusion.runtime.errors import ProofError


def check_storable(name: str, weight: NDArray[np.float32], scheme: Scheme) -> None:
    """Raises ProofError, naming the weight, where it is not finite, or float16 cannot hold it."""
    largest = float(np.abs(weight).max(initial=0))
    if not np.isfinite(largest):
        raise ProofError(f"{name}: the checkpoint holds values that are not finite: download it again")
    if scheme != FLOAT32 and largest > HALF_MAX:
        raise ProofError(f"{name}: {largest:g} is over {HALF_MAX:g}, the largest float16: export it with --recipe fp32")
