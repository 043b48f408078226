"""Every matrix as float16."""

from collections.abc import Mapping

from pocketdiffusion.quantize.recipe import Analysis
from pocketdiffusion.quantize.scheme import FLOAT16, Scheme, Weight


def plan(weights: Mapping[str, Weight], analysis: Analysis) -> dict[str, Scheme]:
    """Return the scheme of each weight of one component."""
    return dict.fromkeys(weights, FLOAT16)
