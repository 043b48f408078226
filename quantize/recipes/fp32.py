"""Every matrix as float32."""

from collections.abc import Mapping

from pocketdiffusion.quantize.recipe import Analysis
from pocketdiffusion.quantize.scheme import FLOAT32, Scheme, Weight


def plan(weights: Mapping[str, Weight], analysis: Analysis) -> dict[str, Scheme]:
    """Return the scheme of each weight of one component."""
    return dict.fromkeys(weights, FLOAT32)
