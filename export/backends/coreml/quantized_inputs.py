"""Integers for activations in ML programs: `quantize` and `dequantize` in front of an operator, from iOS 17 on.

The operator itself stays one of floats. Whoever compiles the program for a processor with integers finds all that it
needs beside it: integers in, integers for the weight, and the scales of both.

Source: https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html, quantization_ops of
iOS 17.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pocketdiffusion.export.backends.coreml.tools import ct
from pocketdiffusion.quantize.qparams import BITS, ValueRange, affine
from pocketdiffusion.runtime.errors import ProofError

mb, scope, types = ct.converters.mil.Builder, ct.converters.mil.mil.scope, ct.converters.mil.mil.types
_TAKES_INTEGERS = ("conv", "linear", "matmul")


def quantize_inputs(block: Any, weights: Mapping[Any, str], spans: Mapping[str, ValueRange]) -> None:
    """Every operator that takes one of `weights` takes its other argument as integers of that weight's span. Operators
    that take the same in the same span share them. Raises ProofError, naming the weight, where an operator takes no
    integers, or its span is missing."""
    pairs: dict[tuple[Any, float, int], Any] = {}
    for operation in list(block.operations):
        for var in operation.get_flattened_inputs():
            if var not in weights:
                continue
            weight = weights[var]
            if operation.op_type not in _TAKES_INTEGERS:
                raise ProofError(f"{weight} belongs to the operator {operation.op_type}, which takes no integers")
            if weight not in spans:
                raise ProofError(f"{weight}: there is no calibrated span of what its operator takes")
            key = "y" if operation.inputs["x"] is var else "x"
            pair = (operation.inputs[key], *affine(spans[weight], BITS["int8"]))
            if pair not in pairs:
                pairs[pair] = _there_and_back(*pair, operation)
            operation.set_inputs(**{key: pairs[pair]})


def _there_and_back(x: Any, scale: float, zero: int, before: Any) -> Any:
    """`x` by way of integers."""
    number = np.float16(scale) if x.dtype == types.fp16 else np.float32(scale)
    how = {"scale": number, "zero_point": np.int8(zero), "before_op": before}
    essential = (scope.ScopeSource.TORCHSCRIPT_MODULE_TYPE, scope.ScopeSource.TORCHSCRIPT_MODULE_NAME)
    with mb.scope(*(scope.ScopeInfo(source, before.scopes[source]) for source in essential)):
        codes = mb.quantize(input=x, output_dtype="int8", name=f"{x.name}_quantized", **how)
        return mb.dequantize(input=codes, name=f"{x.name}_dequantized", **how)
