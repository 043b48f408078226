"""Weights int8 with a scale for each output channel, and what convolutions and matrix products take int16 of calibrated
ranges: for neural processors such as Qualcomm's, which have no float."""

from collections.abc import Mapping

from pocketdiffusion.quantize.recipes import Floors, Survey
from pocketdiffusion.quantize.scheme import Scheme, Weight

FLOORS = Floors(
    dict.fromkeys(("text_encoder", "unet", "vae_decoder", "vae_encoder"), 15.0), (20.0, 15.0), "not measured yet"
)


def plan(weights: Mapping[str, Weight], survey: Survey) -> dict[str, Scheme]:
    whole = Scheme("linear", 8, activation="int16")
    return {name: Scheme("linear", 8) if w.operator == "embedding" else whole for name, w in weights.items()}
