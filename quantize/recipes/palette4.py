"""Every matrix as indices of 4 bits into tables of 16 values, found by k-means."""

from collections.abc import Mapping

from pocketdiffusion.quantize.granularity import palette_group
from pocketdiffusion.quantize.recipes import Floors, Survey
from pocketdiffusion.quantize.scheme import Scheme, Weight

FLOORS = Floors(
    graphs={"text_encoder": 7.0, "unet": 17.0, "vae_decoder": 15.0, "vae_encoder": 19.0},
    pictures=(15.0, 7.0),
    evidence=(
        "15 dB, pictures 6 dB, below what was measured on the built-in model with 24 prompts that are not "
        "judged, the least of coreml (benchmarks/recipes.json): "
        "text_encoder 22.8, unet 32.9, vae_decoder 30.7, vae_encoder 34.2 dB; "
        "pictures' median 21.8, minimum 13.0 dB"
    ),
)


def plan(weights: Mapping[str, Weight], survey: Survey) -> dict[str, Scheme]:
    return dict.fromkeys(weights, Scheme("palette", 4, palette_group(survey.profile)))
