"""Weights int8 with a scale for each output channel; matrix products take int8 too, of the range that their input has
at that moment, and so do convolutions in TFLite. ONNX has no fast kernel for those: ConvInteger takes twice as long as
float32 (benchmarks/RESULTS.md)."""

from collections.abc import Mapping

from pocketdiffusion.quantize.recipes import Floors, Survey
from pocketdiffusion.quantize.scheme import Scheme, Weight

FLOORS = Floors(
    dict.fromkeys(("text_encoder", "unet", "vae_decoder", "vae_encoder"), 15.0), (20.0, 15.0), "not measured yet"
)


def plan(weights: Mapping[str, Weight], survey: Survey) -> dict[str, Scheme]:
    whole = Scheme("linear", 8, activation="dynamic")
    takers = ("linear", "conv") if survey.format == "tflite" else ("linear",)
    return {name: whole if w.operator in takers else Scheme("linear", 8) for name, w in weights.items()}
