"""Every matrix as int4 with a scale for each block of 32 input channels of an output channel."""

from collections.abc import Mapping

from pocketdiffusion.quantize.recipe import Analysis
from pocketdiffusion.quantize.scheme import Scheme, Weight


def plan(weights: Mapping[str, Weight], analysis: Analysis) -> dict[str, Scheme]:
    """Return the scheme of each weight of one component."""
    return dict.fromkeys(weights, Scheme("linear", 4, 32))
