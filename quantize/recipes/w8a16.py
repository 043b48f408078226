"""Weights int8 with a scale for each output channel, and what convolutions and matrix products take int16 of calibrated
ranges: for neural processors such as Qualcomm's, which have no float."""

from collections.abc import Mapping

from pocketdiffusion.quantize.recipes import Floors, Survey
from pocketdiffusion.quantize.scheme import Scheme, Weight

FLOORS = Floors(
    graphs={"text_encoder": 44.0, "unet": 40.0, "vae_decoder": 36.0, "vae_encoder": 43.0},
    pictures=(35.0, 20.0),
    evidence=(
        "15 dB, pictures 6 dB, below what was measured on the built-in model with 24 prompts that are not "
        "judged, the least of onnx (benchmarks/recipes.json): "
        "text_encoder 60.0, unet 55.0, vae_decoder 51.7, vae_encoder 58.5 dB; "
        "pictures' median 42.2, minimum 26.6 dB. No floor is above float16's own: "
        "58 dB, pictures' median 35, minimum 25"
    ),
)


def plan(weights: Mapping[str, Weight], survey: Survey) -> dict[str, Scheme]:
    whole = Scheme("linear", 8, activation="int16")
    return {name: Scheme("linear", 8) if w.operator == "embedding" else whole for name, w in weights.items()}
