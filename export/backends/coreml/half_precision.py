"""coremltools' pass that converts a program to float16, and the operators that stay float32."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from pocketdiffusion.export.backends.coreml.intermediate_outputs import identifier
from pocketdiffusion.export.backends.coreml.tools import ct
from pocketdiffusion.quantize.float16_range import HALF_MAX

_REPLACED, _PASS = "common::add_fp16_cast", "pocketdiffusion::half_precision"


@ct.converters.mil.mil.passes.pass_registry.register_pass(namespace="pocketdiffusion")
class half_precision(ct.transform.FP16ComputePrecision):  # type: ignore[misc]
    """The pass of coremltools that casts a program to float16; its registry requires the class name. coremltools' own
    `fp16_overflow` needs 11 times the weights of a convolution in memory: this one calls it only for operators that
    have a constant beyond float16."""

    @staticmethod
    def fp16_overflow(op: Any) -> bool:
        """Return True if a constant input has a magnitude over 65504 and below 1e38, so that the operator stays
        float32."""
        if all(_fits_half(values) for values in _constants(op)):
            return False
        return bool(ct.transform.FP16ComputePrecision.fp16_overflow(op))


def use_half_precision(pipeline: Any, islands: Iterable[str]) -> None:
    """Put the pass into coremltools' `pipeline` instead of its own. The outputs named `islands`, and sines with their
    arguments, stay float32."""
    names = frozenset(islands)
    pipeline.passes = [_PASS if name == _REPLACED else name for name in pipeline.passes]
    select = lambda operation: not (_leads_to_a_sine(operation) or _is_island(operation, names))  # noqa: E731
    pipeline.set_options(_PASS, {"op_selector": select})


def _constants(op: Any) -> Iterable[Any]:
    """Yield the float32 values among the inputs of an operator that are known when it is converted."""
    for given in op.inputs.values():
        for var in given if isinstance(given, (list, tuple)) else (given,):
            if var.is_tensor_or_scalar_of(dtype="fp32") and var.val is not None:
                yield var.val


def _fits_half(values: Any) -> bool:
    """Return True if all values are within float16, without a copy of them. NaN and infinities are not."""
    return bool(np.min(values, initial=0) >= -HALF_MAX and np.max(values, initial=0) <= HALF_MAX)


def _leads_to_a_sine(operation: Any, steps: int = 4) -> bool:
    """Return True for a sine or cosine and for the operators that compute its argument, up to `steps` operators before.

    They stay float32: an angle of up to 1000 has an error of 0.25 in float16. In float16 the built-in model's UNet had
    2.8 dB less at timestep 733.27 (Karras samplers have such timesteps), 2.3 dB less at 250, and no visible loss on
    the gate's own trajectories."""
    if operation.op_type in ("sin", "cos"):
        return True
    children = (child for output in operation.outputs for child in output.child_ops)
    return steps > 0 and any(_leads_to_a_sine(child, steps - 1) for child in children)


def _is_island(operation: Any, islands: frozenset[str]) -> bool:
    """Return True if the operation is one of `islands`, or its only consumer is, with which it may be fused later."""
    if identifier(operation.name) in islands:
        return True
    children = [child for output in operation.outputs for child in output.child_ops]
    return len(children) == 1 and identifier(children[0].name) in islands
