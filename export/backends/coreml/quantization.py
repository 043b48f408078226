"""Compressed weights in ML programs: which schemes each system has, and the graph pass that puts codes, scales and
tables of a plan in the place of the converter's constants.

Integers are `constexpr_affine_dequantize` before iOS 18 and `constexpr_blockwise_shift_scale` from then on, palettes
`constexpr_lut_to_dense` in the form of either. Each result has the type and the name that the constant had. Numbers of
5 to 7 bits lie in int8, those of 2 and 3 in int4, for MIL has nothing between.

Source: https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html, constexpr_ops of iOS 16
and of iOS 18.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketdiffusion.export.backends.coreml.quantized_inputs import quantize_inputs
from pocketdiffusion.export.backends.coreml.taps import constant, constants, identifier, weight_of
from pocketdiffusion.export.backends.coreml.tools import ct
from pocketdiffusion.export.component import Component
from pocketdiffusion.quantize.quantized_tensor import Linear, Palette, Plain, store
from pocketdiffusion.quantize.scheme import Plan, Scheme
from pocketdiffusion.runtime.engines.mlprogram.program import read_program
from pocketdiffusion.runtime.errors import ProofError

mb, mil = ct.converters.mil.Builder, ct.converters.mil.mil
passes, types = mil.passes, mil.types
_PASS = "pocketdiffusion::compress"
_MERGE = "common::const_deduplication"  # not before ours: equal weights may have schemes of their own


def compresses(plan: Plan) -> bool:
    """Whether there is anything to do."""
    return any((scheme.kind, scheme.activation) != ("float", "float") for scheme in plan.schemes.values())


def add_pass(pipeline: Any, part: Component, plan: Plan) -> list[ProofError]:
    """Makes coremltools' `pipeline` end with the compression of `part`.

    What goes wrong is in the list that is returned, once the pipeline has run: an error raised on the way would leave
    coremltools counting names from where it stopped, in the next conversion too.
    """
    faults: list[ProofError] = []
    pipeline.remove_passes({_MERGE})
    pipeline.append_pass(_PASS)
    pipeline.set_options(_PASS, {"part": part, "plan": plan, "faults": faults})
    return faults


@passes.pass_registry.register_pass(namespace="pocketdiffusion")
class compress(passes.graph_pass.AbstractGraphPass):  # type: ignore[misc, name-defined]
    """The pass, with its options, as coremltools wants one: it is called by the name of its class."""

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
    """Raises ProofError, naming the weight, where a weight's constant is not found, or is not the weight."""
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
        # what the converter computed of a weight has another name: positions, which it took in their order
        own = found[weight] or [var for var in others if _is(var, values)]
        if not own:
            raise ProofError(f"{part.spec.name}: {weight} is no constant of the Core ML program")
        stored = store(values, scheme)
        for var in own:
            if not _is(var, values):
                raise ProofError(f"{part.spec.name}: {weight} is not the same in the Core ML program")
            new = var
            if not isinstance(stored, Plain):
                new = _replace(block, var, weight, stored)
                replaced.append(var.op)
            if scheme.activation != "float":
                integers[new] = weight
    block.remove_ops(replaced)
    quantize_inputs(block, integers, plan.inputs)


def _is(var: Any, values: NDArray[np.float32]) -> bool:
    """Whether a constant is the weight, in float32 or float16, but for axes of size 1 around it. What would become 0 in
    float16 the converter makes the smallest float16."""
    if var.val is None or var.val.dtype not in (np.float16, np.float32) or _lead(var.shape, values.shape) is None:
        return False
    return bool(np.allclose(var.val.reshape(values.shape), values, rtol=2**-10, atol=2**-24))


def _lead(shape: Sequence[int], own: Sequence[int]) -> int | None:
    """How many axes of size 1 come before a weight's own; None where there are other axes than those around them."""
    for lead in range(len(shape) - len(own) + 1):
        around = {*shape[:lead], *shape[lead + len(own) :]}
        if tuple(shape[lead : lead + len(own)]) == tuple(own) and around <= {1}:
            return lead
    return None


def _replace(block: Any, var: Any, weight: str, stored: Linear | Palette) -> Any:
    """Puts the compressed weight in the place of the constant, under its name if that is the weight's."""
    name = identifier(var.name)
    if name not in constants([weight]):
        name = constant(weight) + "_to_fp16" * (var.dtype == types.fp16)
    lead = _lead(var.shape, stored.quantized.shape) or 0
    where = {"name": name, "before_op": var.op}
    if isinstance(stored, Linear):
        new = _linear(stored, var.shape, lead, var.val.dtype, where)
    else:
        new = _palette(stored, var.shape, lead, var.val.dtype, where)
    new.op.weight_key = weight  # what keeps coremltools from merging it with an equal one
    block.replace_uses_of_var_after_op(anchor_op=var.op, old_var=var, new_var=new, force_replace=True)
    return new


def _linear(stored: Linear, shape: Sequence[int], lead: int, dtype: Any, where: Mapping[str, Any]) -> Any:
    """In `shape`, which has `lead` axes of size 1 before the weight's own, and some behind."""
    codes, scale = stored.quantized.reshape(shape), stored.scale.astype(dtype)
    if _has_blocks():
        kind = np.int8 if stored.bits > 4 else types.nptype_from_builtin(types.int4)
        axes = [1] * lead + list(scale.shape) + [1] * (len(shape) - lead - scale.ndim)
        return mb.constexpr_blockwise_shift_scale(data=codes.astype(kind), scale=scale.reshape(axes), **where)
    scale = scale.reshape(-1)
    return mb.constexpr_affine_dequantize(
        quantized_data=codes, zero_point=np.zeros(scale.shape, np.int8), scale=scale, axis=np.int32(lead), **where
    )


def _palette(stored: Palette, shape: Sequence[int], lead: int, dtype: Any, where: Mapping[str, Any]) -> Any:
    """As `_linear`."""
    table = stored.table.astype(dtype)
    if _has_blocks():
        kind = types.nptype_from_builtin(types.string_to_builtin(f"uint{stored.bits}"))
        axes = [1] * lead + [len(table)] + [1] * (len(shape) - lead - 1)
        indices, lut = stored.quantized.reshape(shape).astype(kind), table.reshape(*axes, -1, 1)
        return mb.constexpr_lut_to_dense(indices=indices, lut=lut, **where)
    packed = _pack(stored.quantized, stored.bits)
    return mb.constexpr_lut_to_dense(indices=packed, lut=table[0], shape=np.array(shape, np.uint32), **where)


def _has_blocks() -> bool:
    """Whether the program that is being made has the operators of iOS 18."""
    return bool(mil.block.is_current_opset_version_compatible_with(ct.target.iOS18))


def _pack(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """A little-endian stream of `bits` bits for each code."""
    stream = np.unpackbits(codes.reshape(-1, 1), axis=1, count=bits, bitorder="little")
    return np.packbits(stream, bitorder="little")


def check_compressed(package: Path, part: Component, plan: Plan, profile: str) -> None:
    """Raises ProofError, naming the weight, where the package that was written does not hold what `plan` says."""
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
                raise ProofError(f"{part.spec.name}: the operator of {weight} takes no integers in {package}")
    if found != wanted:
        weight = min(weight for weight, _ in found.items() ^ wanted.items())
        raise ProofError(f"{part.spec.name}: {package} has {found.get(weight)} for {weight}, not {wanted.get(weight)}")


def _operator(scheme: Scheme, profile: str) -> str:
    if scheme.kind == "palette":
        return "constexpr_lut_to_dense"
    return "constexpr_blockwise_shift_scale" if profile == "ios18" else "constexpr_affine_dequantize"
