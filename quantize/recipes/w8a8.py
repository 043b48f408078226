"""Weights int8 with a scale for each output channel, and inputs of convolutions and matrix products int8 with
calibrated ranges, except for the most sensitive weights (islands): stored as int8, with float32 inputs."""

from collections.abc import Mapping

from pocketdiffusion.quantize.islands import most_sensitive
from pocketdiffusion.quantize.recipe import Analysis
from pocketdiffusion.quantize.scheme import Scheme, Weight

SHARE = 0.95  # of the total sensitivity is in islands: in the built-in UNet 19 of 133 weights, a third of its products
MOST = 0.15  # largest fraction of a component's weights that are islands: they are slower


def plan(weights: Mapping[str, Weight], analysis: Analysis) -> dict[str, Scheme]:
    """Return the scheme of each weight of one component."""
    integers, island = Scheme("linear", 8, activation="int8"), Scheme("linear", 8)
    measured = analysis.sensitivity(integers)
    products = {name: error for name, error in measured.items() if weights[name].operator != "embedding"}
    kept = most_sensitive(products, SHARE, MOST)
    return {name: integers if name in products and name not in kept else island for name in weights}
