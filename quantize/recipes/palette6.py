"""Every matrix as indices of 6 bits into tables of 64 values, found by k-means."""

from collections.abc import Mapping

from pocketdiffusion.quantize.granularity import palette_group
from pocketdiffusion.quantize.recipes import Floors, Survey
from pocketdiffusion.quantize.scheme import Scheme, Weight

FLOORS = Floors(
    graphs={"text_encoder": 31.0, "unet": 31.0, "vae_decoder": 30.0, "vae_encoder": 35.0},
    pictures=(29.0, 18.0),
    evidence=(
        "15 dB, pictures 6 dB, below what was measured on the built-in model with 24 prompts that are not "
        "judged, the least of coreml (benchmarks/recipes.json): "
        "text_encoder 46.2, unet 46.6, vae_decoder 45.2, vae_encoder 50.3 dB; "
        "pictures' median 35.1, minimum 24.9 dB"
    ),
)


def plan(weights: Mapping[str, Weight], survey: Survey) -> dict[str, Scheme]:
    return dict.fromkeys(weights, Scheme("palette", 6, palette_group(survey.profile)))
