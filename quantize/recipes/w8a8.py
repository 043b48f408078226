"""Weights int8 with a scale for each output channel, and what convolutions and matrix products take int8 of calibrated
ranges. Those that would do most damage are islands: their weights are int8, what they take stays float32."""

from collections.abc import Mapping

from pocketdiffusion.quantize.islands import costly
from pocketdiffusion.quantize.recipes import Floors, Survey
from pocketdiffusion.quantize.scheme import Scheme, Weight

SHARE = 0.95  # of the damage, which the islands carry: in the built-in UNet 19 of 133 weights, a third of its products
MOST = 0.15  # of a component's weights that may be islands: they cost time
FLOORS = Floors(
    graphs={"text_encoder": 26.0, "unet": 34.0, "vae_decoder": 26.0, "vae_encoder": 36.0},
    pictures=(25.0, 15.0),
    evidence=(
        "15 dB, pictures 6 dB, below what was measured on the built-in model with 24 prompts that are not "
        "judged, the least of coreml, onnx, tflite (benchmarks/recipes.json): "
        "text_encoder 41.1, unet 50.0, vae_decoder 41.9, vae_encoder 51.0 dB; "
        "pictures' median 31.9, minimum 21.2 dB"
    ),
)


def plan(weights: Mapping[str, Weight], survey: Survey) -> dict[str, Scheme]:
    whole, island = Scheme("linear", 8, activation="int8"), Scheme("linear", 8)
    damage = {name: cost for name, cost in survey.damage(whole).items() if weights[name].operator != "embedding"}
    kept = costly(damage, SHARE, MOST)
    return {name: whole if name in damage and name not in kept else island for name in weights}
