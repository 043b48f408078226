"""Weights int8 with a scale for each output channel, and inputs of convolutions and matrix products int16 of
calibrated ranges: for neural processors such as Qualcomm's, which have no float."""

from collections.abc import Mapping

from pocketdiffusion.quantize.recipe import Analysis
from pocketdiffusion.quantize.scheme import Scheme, Weight


def plan(weights: Mapping[str, Weight], analysis: Analysis) -> dict[str, Scheme]:
    integers = Scheme("linear", 8, activation="int16")
    return {name: Scheme("linear", 8) if w.operator == "embedding" else integers for name, w in weights.items()}
