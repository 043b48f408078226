"""Integer activations in ML programs: `quantize` and `dequantize` in front of an operator, from iOS 17 on.

The operator itself still computes in floats. A compiler for a processor with integer arithmetic finds next to it the
quantized input, the quantized weight, and the scales of both.

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
_WITH_INTEGERS = ("conv", "linear", "matmul")


def quantize_inputs(block: Any, weights: Mapping[Any, str], ranges: Mapping[str, ValueRange]) -> None:
    """Quantize the other input of every operator that reads one of `weights`, by the value range of that weight's
    input. Operators that read the same tensor by the same range share its integers. Raise ProofError, naming the
    weight, if the operator cannot read integers or the range is missing."""
    pairs: dict[tuple[Any, float, int], Any] = {}
    for operation in list(block.operations):
        for var in operation.get_flattened_inputs():
            if var not in weights:
                continue
            weight = weights[var]
            if operation.op_type not in _WITH_INTEGERS:
                raise ProofError(f"{weight} belongs to the operator {operation.op_type}, which cannot read integers")
            if weight not in ranges:
                raise ProofError(
                    f"{weight}: the plan has no calibrated value range for the input of this weight's "
                    "operator: run calibration (export.quantization.calibrate) before emitting"
                )
            key = "y" if operation.inputs["x"] is var else "x"
            pair = (operation.inputs[key], *affine(ranges[weight], BITS["int8"]))
            if pair not in pairs:
                pairs[pair] = _round_trip(*pair, operation)
            operation.set_inputs(**{key: pairs[pair]})


def _round_trip(x: Any, scale: float, zero_point: int, before: Any) -> Any:
    """Return `x` quantized to int8 and dequantized, by operators before `before`."""
    number = np.float16(scale) if x.dtype == types.fp16 else np.float32(scale)
    how = {"scale": number, "zero_point": np.int8(zero_point), "before_op": before}
    essential = (scope.ScopeSource.TORCHSCRIPT_MODULE_TYPE, scope.ScopeSource.TORCHSCRIPT_MODULE_NAME)
    with mb.scope(*(scope.ScopeInfo(source, before.scopes[source]) for source in essential)):
        quantized = mb.quantize(input=x, output_dtype="int8", name=f"{x.name}_quantized", **how)
        return mb.dequantize(input=quantized, name=f"{x.name}_dequantized", **how)
