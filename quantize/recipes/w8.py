"""Every matrix as int8 with a scale for each output channel; arithmetic stays what it was."""

from collections.abc import Mapping

from pocketdiffusion.quantize.recipe import Analysis
from pocketdiffusion.quantize.scheme import Scheme, Weight


def plan(weights: Mapping[str, Weight], analysis: Analysis) -> dict[str, Scheme]:
    return dict.fromkeys(weights, Scheme("linear", 8))
