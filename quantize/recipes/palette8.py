"""Every matrix as indices of 8 bits into tables of 256 values, found by k-means."""

from collections.abc import Mapping

from pocketdiffusion.quantize.granularity import palette_group
from pocketdiffusion.quantize.recipes import Floors, Survey
from pocketdiffusion.quantize.scheme import Scheme, Weight

FLOORS = Floors(
    graphs={"text_encoder": 46.0, "unet": 44.0, "vae_decoder": 43.0, "vae_encoder": 52.0},
    pictures=(35.0, 24.0),
    evidence=(
        "15 dB, pictures 6 dB, below what was measured on the built-in model with 24 prompts that are not "
        "judged, the least of coreml (benchmarks/recipes.json): "
        "text_encoder 61.5, unet 59.2, vae_decoder 58.7, vae_encoder 67.6 dB; "
        "pictures' median 46.1, minimum 30.5 dB. No floor is above float16's own: "
        "58 dB, pictures' median 35, minimum 25"
    ),
)


def plan(weights: Mapping[str, Weight], survey: Survey) -> dict[str, Scheme]:
    return dict.fromkeys(weights, Scheme("palette", 8, palette_group(survey.profile)))
