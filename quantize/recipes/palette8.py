"""Every matrix as indices of 8 bits into tables of 256 values, found by k-means."""

from collections.abc import Mapping

from pocketdiffusion.quantize.granularity import palette_group
from pocketdiffusion.quantize.recipes import Floors, Survey
from pocketdiffusion.quantize.scheme import Scheme, Weight

FLOORS = Floors(
    dict.fromkeys(("text_encoder", "unet", "vae_decoder", "vae_encoder"), 15.0), (20.0, 15.0), "not measured yet"
)


def plan(weights: Mapping[str, Weight], survey: Survey) -> dict[str, Scheme]:
    return dict.fromkeys(weights, Scheme("palette", 8, palette_group(survey.profile)))
