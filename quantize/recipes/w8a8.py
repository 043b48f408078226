"""Weights int8 with a scale for each output channel, and inputs of convolutions and matrix products int8 of
calibrated ranges. The most sensitive are islands: their weights are int8, their inputs stay float32."""

from collections.abc import Mapping

from pocketdiffusion.quantize.islands import costly
from pocketdiffusion.quantize.recipe import Analysis
from pocketdiffusion.quantize.scheme import Scheme, Weight

SHARE = 0.95  # of all sensitivities, in the islands: in the built-in UNet 19 of 133 weights, a third of its products
MOST = 0.15  # of a component's weights that may be islands: they cost time


def plan(weights: Mapping[str, Weight], analysis: Analysis) -> dict[str, Scheme]:
    integers, island = Scheme("linear", 8, activation="int8"), Scheme("linear", 8)
    measured = analysis.sensitivity(integers)
    products = {name: error for name, error in measured.items() if weights[name].operator != "embedding"}
    kept = costly(products, SHARE, MOST)
    return {name: integers if name in products and name not in kept else island for name in weights}
