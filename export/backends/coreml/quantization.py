"""Compressed weights in ML programs: the graph pass that replaces the converter's constants by quantized values with
scales, or indices with lookup tables, as a plan says.

Integers are `constexpr_affine_dequantize` before iOS 18 and `constexpr_blockwise_shift_scale` from then on, palettes
`constexpr_lut_to_dense` in the form of either system. Each output has the type and the name of the constant that it
replaces. Values of 5 to 7 bits are stored in int8 and of 2 and 3 bits in int4, the only such types of MIL.

Source: https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html, constexpr_ops of iOS 16
and of iOS 18.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketdiffusion.export.backends.coreml.intermediate_outputs import constant, constants, identifier, weight_of
from pocketdiffusion.export.backends.coreml.quantized_inputs import quantize_inputs
from pocketdiffusion.export.backends.coreml.tools import ct
from pocketdiffusion.export.component import Component
from pocketdiffusion.quantize.quantized_tensor import Linear, Palette, Plain, store
from pocketdiffusion.quantize.scheme import Plan, Scheme
from pocketdiffusion.runtime.engines.mlprogram.program import read_program
from pocketdiffusion.runtime.errors import ProofError

mb, mil = ct.converters.mil.Builder, ct.converters.mil.mil
passes, types = mil.passes, mil.types
_PASS = "pocketdiffusion::compress"
_MERGE = "common::const_deduplication"  # must not run before our pass: equal weights may have different schemes


def compresses(plan: Plan) -> bool:
    """Return True if `plan` stores or computes any weight in another way than as floats."""
    return any((scheme.kind, scheme.activation) != ("float", "float") for scheme in plan.schemes.values())


def add_pass(pipeline: Any, part: Component, plan: Plan) -> list[ProofError]:
    """Append the compression of `part` to coremltools' `pipeline`. Return a list to which the pass appends its errors
    when the pipeline runs.

    The pass does not raise: an exception would leave the name counters of coremltools as they are, and change the names
    of the next conversion.
    """
    faults: list[ProofError] = []
    pipeline.remove_passes({_MERGE})
    pipeline.append_pass(_PASS)
    pipeline.set_options(_PASS, {"part": part, "plan": plan, "faults": faults})
    return faults


@passes.pass_registry.register_pass(namespace="pocketdiffusion")
class compress(passes.graph_pass.AbstractGraphPass):  # type: ignore[misc, name-defined]
    """The pass with its options, in coremltools' form, which registers it under the name of its class."""

    part: Any = None
    plan: Any = None
    faults: Any = None

    def apply(self, program: Any) -> None:
        try:
            for function in program.functions.values():
                with function:
                    _compress(function, self.part, self.plan)
        except ProofError as error:
            self.faults.append(error)


def _compress(block: Any, part: Component, plan: Plan) -> None:
    """Compress the constants of `block`. Raise ProofError, naming the weight, if its constant is missing or differs."""
    names = constants(plan.schemes)
    found: dict[str, list[Any]] = defaultdict(list)
    others: list[Any] = []
    for operation in block.operations:
        if operation.op_type == "const" and operation.outputs[0].rank > 1:
            (var,) = operation.outputs
            name = identifier(var.name)
            (found[names[name]] if name in names else others).append(var)
    integers = {}
    replaced = []
    for weight, scheme in plan.schemes.items():
        if (scheme.kind, scheme.activation) == ("float", "float"):
            continue
        values = part.weights[weight].read()
        # a constant that the converter computed from a weight has another name: the positions, in their order
        own = found[weight] or [var for var in others if _is(var, values)]
        if not own:
            raise ProofError(f"{part.spec.name}: the Core ML program has no constant for the weight {weight}")
        stored = store(values, scheme)
        for var in own:
            if not _is(var, values):
                raise ProofError(f"{part.spec.name}: the weight {weight} has other values in the Core ML program")
            new = var
            if not isinstance(stored, Plain):
                new = _replace(block, var, weight, stored)
                replaced.append(var.op)
            if scheme.activation != "float":
                integers[new] = weight
    block.remove_ops(replaced)
    quantize_inputs(block, integers, plan.inputs)


def _is(var: Any, values: NDArray[np.float32]) -> bool:
    """Return True if a constant has the weight's `values` in float32 or float16, up to axes of size 1 around them. The
    converter replaces values that would become 0 in float16 by the smallest float16."""
    if var.val is None or var.val.dtype not in (np.float16, np.float32) or _lead(var.shape, values.shape) is None:
        return False
    return bool(np.allclose(var.val.reshape(values.shape), values, rtol=2**-10, atol=2**-24))


def _lead(shape: Sequence[int], own: Sequence[int]) -> int | None:
    """Return how many axes of size 1 precede the axes `own` in `shape`, None if the other axes are not all of size
    1."""
    for lead in range(len(shape) - len(own) + 1):
        around = {*shape[:lead], *shape[lead + len(own) :]}
        if tuple(shape[lead : lead + len(own)]) == tuple(own) and around <= {1}:
            return lead
    return None


def _replace(block: Any, var: Any, weight: str, stored: Linear | Palette) -> Any:
    """Replace the constant by the compressed weight, and return its variable. It has the name that the converter gives
    the weight."""
    name = identifier(var.name)
    if name not in constants([weight]):
        name = constant(weight) + "_to_fp16" * (var.dtype == types.fp16)
    lead = _lead(var.shape, stored.quantized.shape) or 0
    where = {"name": name, "before_op": var.op}
    if isinstance(stored, Linear):
        new = _linear(stored, var.shape, lead, var.val.dtype, where)
    else:
        new = _palette(stored, var.shape, lead, var.val.dtype, where)
    new.op.weight_key = weight  # keeps coremltools from merging it with an equal one
    block.replace_uses_of_var_after_op(anchor_op=var.op, old_var=var, new_var=new, force_replace=True)
    return new


def _linear(stored: Linear, shape: Sequence[int], lead: int, dtype: Any, where: Mapping[str, Any]) -> Any:
    """Add the operator that dequantizes integers, and return its output of `shape`: the weight's own, with `lead` axes
    of size 1 before it and any number after it."""
    quantized, scale = stored.quantized.reshape(shape), stored.scale.astype(dtype)
    if _has_blocks():
        kind = np.int8 if stored.bits > 4 else types.nptype_from_builtin(types.int4)
        axes = [1] * lead + list(scale.shape) + [1] * (len(shape) - lead - scale.ndim)
        return mb.constexpr_blockwise_shift_scale(data=quantized.astype(kind), scale=scale.reshape(axes), **where)
    scale = scale.reshape(-1)
    return mb.constexpr_affine_dequantize(
        quantized_data=quantized, zero_point=np.zeros(scale.shape, np.int8), scale=scale, axis=np.int32(lead), **where
    )


def _palette(stored: Palette, shape: Sequence[int], lead: int, dtype: Any, where: Mapping[str, Any]) -> Any:
    """Add the operator that looks the indices of a palette up; arguments and output are as in `_linear`."""
    table = stored.table.astype(dtype)
    if _has_blocks():
        kind = types.nptype_from_builtin(types.string_to_builtin(f"uint{stored.bits}"))
        axes = [1] * lead + [len(table)] + [1] * (len(shape) - lead - 1)
        indices, lut = stored.quantized.reshape(shape).astype(kind), table.reshape(*axes, -1, 1)
        return mb.constexpr_lut_to_dense(indices=indices, lut=lut, **where)
    packed = _pack(stored.quantized, stored.bits)
    return mb.constexpr_lut_to_dense(indices=packed, lut=table[0], shape=np.array(shape, np.uint32), **where)


def _has_blocks() -> bool:
    """Return True if the program that is being built has the operators of iOS 18, which have scales for blocks."""
    return bool(mil.block.is_current_opset_version_compatible_with(ct.target.iOS18))


def _pack(quantized: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Return the values as a little-endian stream of `bits` bits each, in bytes."""
    stream = np.unpackbits(quantized.reshape(-1, 1), axis=1, count=bits, bitorder="little")
    return np.packbits(stream, bitorder="little")


def check_compressed(package: Path, part: Component, plan: Plan, profile: str) -> None:
    """Raise ProofError, naming the weight, if the package that was written does not store the weights as `plan`
    says."""
    names = constants(plan.schemes)
    wanted = {weight: _operator(s, profile) for weight, s in plan.schemes.items() if s.kind != "float"}
    found: dict[str, str] = {}
    makers: dict[str, str] = {}
    for operation in read_program(package).operations:
        makers |= {result.name: operation.kind for result in operation.results}
        if operation.kind.startswith("constexpr_"):
            name = operation.results[0].name
            found[names.get(name, name)] = operation.kind
        weight = weight_of(operation, names)
        if weight is not None and plan.schemes[weight].activation != "float":
            if "dequantize" not in {makers.get(name) for name in operation.uses}:
                raise ProofError(f"{part.spec.name}: the operator of {weight} has no integer input in {package}")
    if found != wanted:
        weight = min(weight for weight, _ in found.items() ^ wanted.items())
        raise ProofError(
            f"{part.spec.name}: in {package} the weight {weight} is stored by "
            f"{found.get(weight) or 'no constexpr operator'}, and the plan requires "
            f"{wanted.get(weight) or 'none'}"
        )


def _operator(scheme: Scheme, profile: str) -> str:
    if scheme.kind == "palette":
        return "constexpr_lut_to_dense"
    return "constexpr_blockwise_shift_scale" if profile == "ios18" else "constexpr_affine_dequantize"
