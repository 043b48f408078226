"""Weights int8 with a scale for each output channel, and inputs of convolutions and matrix products int16 with
calibrated ranges: for neural processors without float arithmetic, such as Qualcomm's."""

from collections.abc import Mapping

from pocketdiffusion.quantize.recipe import Analysis
from pocketdiffusion.quantize.scheme import Scheme, Weight


def plan(weights: Mapping[str, Weight], analysis: Analysis) -> dict[str, Scheme]:
    """Return the scheme of each weight of one component."""
    integers = Scheme("linear", 8, activation="int16")
    return {name: Scheme("linear", 8) if w.operator == "embedding" else integers for name, w in weights.items()}
