"""Weights int8 with a scale for each output channel, and inputs of matrix products (in TFLite also of convolutions)
int8, with a range that is computed at each call. ONNX has no fast kernel for such convolutions: ConvInteger needs
twice the time of float32 (benchmarks/RESULTS.md)."""

from collections.abc import Mapping

from pocketdiffusion.quantize.recipe import Analysis
from pocketdiffusion.quantize.scheme import Scheme, Weight
from pocketdiffusion.runtime.engines import find_engine


def plan(weights: Mapping[str, Weight], analysis: Analysis) -> dict[str, Scheme]:
    """Return the scheme of each weight of one component."""
    integers, engine = Scheme("linear", 8, activation="dynamic"), find_engine(analysis.format)
    operators = ("linear", "conv") if engine is not None and engine.dynamic_convolutions else ("linear",)
    return {name: integers if w.operator in operators else Scheme("linear", 8) for name, w in weights.items()}
