"""Every matrix as int4 with a scale for each 32 input channels of an output channel."""

from collections.abc import Mapping

from pocketdiffusion.quantize.recipes import Floors, Survey
from pocketdiffusion.quantize.scheme import Scheme, Weight

FLOORS = Floors(
    dict.fromkeys(("text_encoder", "unet", "vae_decoder", "vae_encoder"), 15.0), (20.0, 15.0), "not measured yet"
)


def plan(weights: Mapping[str, Weight], survey: Survey) -> dict[str, Scheme]:
    return dict.fromkeys(weights, Scheme("linear", 4, 32))
