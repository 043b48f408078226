"""Weights int8 with a scale for each output channel; matrix products take int8 too, of the range that their input has
at that moment, and so do convolutions in TFLite. ONNX has no fast kernel for those: ConvInteger takes twice as long as
float32 (benchmarks/RESULTS.md)."""

from collections.abc import Mapping

from pocketdiffusion.quantize.recipes import Floors, Survey
from pocketdiffusion.quantize.scheme import Scheme, Weight
from pocketdiffusion.runtime.engines import find_engine

FLOORS = Floors(
    graphs={"text_encoder": 31.0, "unet": 32.0, "vae_decoder": 30.0, "vae_encoder": 39.0},
    pictures=(28.0, 17.0),
    evidence=(
        "15 dB, pictures 6 dB, below what was measured on the built-in model with 24 prompts that are not "
        "judged, the least of onnx, tflite (benchmarks/recipes.json): "
        "text_encoder 46.6, unet 47.5, vae_decoder 45.3, vae_encoder 54.6 dB; "
        "pictures' median 34.3, minimum 23.6 dB"
    ),
)


def plan(weights: Mapping[str, Weight], survey: Survey) -> dict[str, Scheme]:
    whole = Scheme("linear", 8, activation="dynamic")
    engine = find_engine(survey.format)
    takers = ("linear", "conv") if engine is not None and engine.dynamic_convolutions else ("linear",)
    return {name: whole if w.operator in takers else Scheme("linear", 8) for name, w in weights.items()}
