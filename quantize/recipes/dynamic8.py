"""Weights int8 with a scale for each output channel; inputs of matrix products int8 too, of the range that each has at
that moment, and so are those of convolutions in TFLite. ONNX has no fast kernel for these: ConvInteger takes twice as
long as float32 (benchmarks/RESULTS.md)."""

from collections.abc import Mapping

from pocketdiffusion.quantize.recipe import Analysis
from pocketdiffusion.quantize.scheme import Scheme, Weight
from pocketdiffusion.runtime.engines import find_engine


def plan(weights: Mapping[str, Weight], analysis: Analysis) -> dict[str, Scheme]:
    integers, engine = Scheme("linear", 8, activation="dynamic"), find_engine(analysis.format)
    operators = ("linear", "conv") if engine is not None and engine.dynamic_convolutions else ("linear",)
    return {name: integers if w.operator in operators else Scheme("linear", 8) for name, w in weights.items()}
