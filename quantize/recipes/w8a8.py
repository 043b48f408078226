"""Weights int8 with a scale for each output channel, and what convolutions and matrix products take int8 of calibrated
ranges. Those that would do most damage are islands: their weights are int8, what they take stays float32."""

from collections.abc import Mapping

from pocketdiffusion.quantize.islands import costly
from pocketdiffusion.quantize.recipes import Floors, Survey
from pocketdiffusion.quantize.scheme import Scheme, Weight

SHARE = 0.95  # of the damage, which the islands carry: in the built-in UNet 19 of 133 weights, a third of its products
MOST = 0.15  # of a component's weights that may be islands: they cost time
FLOORS = Floors(
    graphs={"text_encoder": 33.0, "unet": 37.0, "vae_decoder": 31.0, "vae_encoder": 38.0},
    pictures=(27.0, 16.0),
    evidence=(
        "15 dB, pictures 6 dB, below what was measured on the built-in model with 24 prompts that are not "
        "judged, the least of coreml, onnx (benchmarks/recipes.json): "
        "text_encoder 48.6, unet 52.2, vae_decoder 46.1, vae_encoder 53.3 dB; "
        "pictures' median 33.8, minimum 22.4 dB"
    ),
)


def plan(weights: Mapping[str, Weight], survey: Survey) -> dict[str, Scheme]:
    whole, island = Scheme("linear", 8, activation="int8"), Scheme("linear", 8)
    damage = {name: cost for name, cost in survey.damage(whole).items() if weights[name].operator != "embedding"}
    kept = costly(damage, SHARE, MOST)
    return {name: whole if name in damage and name not in kept else island for name in weights}
