"""The check that every node of an artifact has a kernel in the installed onnxruntime, and belongs to its profile.

At load time onnxruntime reports missing kernels one at a time, or silently expands an operator without a kernel into
many small ones. Here the table of its kernels is read instead.
"""

from collections import Counter
from functools import cache
from typing import Any

import onnx_ir as ir
from onnxruntime.capi import onnxruntime_pybind11_state as ort

from pocketdiffusion.export.backends.onnx.lowering import Profile
from pocketdiffusion.quantize.scheme import Plan
from pocketdiffusion.runtime.errors import ProofError

STD_OPSET = 21  # the newest that onnxruntime of 2024 supports
_INTEGERS = frozenset(ir.DataType[f"{sign}INT{bits}"] for sign in ("", "U") for bits in (4, 8, 16))
_PROVIDER = "CPUExecutionProvider"


def lint(model: ir.Model, profile: Profile) -> dict[str, int]:
    """Return the number of the model's nodes by operator. Raise ProofError for one that the profile forbids or that has
    no CPU kernel, and for a constant without uses."""
    opset = model.opset_imports[""]
    if profile == "std" and opset > STD_OPSET:
        raise ProofError(
            f"the ONNX graph has opset {opset}, and the profile std allows at most {STD_OPSET}: lower it in the "
            "exporter"
        )
    for node in model.graph:
        domain = f"{node.domain}::" if node.domain else ""
        if profile == "std" and node.domain:
            raise ProofError(f"{node.name}: {domain}{node.op_type} is not a standard operator, which profile std needs")
        problem = _missing_kernel(node, model.opset_imports[node.domain])
        if problem:
            raise ProofError(f"{node.name}: onnxruntime has no CPU kernel for {domain}{node.op_type} {problem}")
    for name, value in model.graph.initializers.items():
        if not value.uses() and not value.is_graph_output():
            raise ProofError(f"{name}: no operator reads this constant, and onnxruntime warns of it at each load")
    return dict(sorted(Counter(node.op_type for node in model.graph).items()))


def lint_static(model: ir.Model, plan: Plan) -> None:
    """Check a graph of 16-bit activations for a neural processor: no open sizes; inputs and outputs are not quantized;
    each operator of a weight with such activations reads quantized values, and its output is quantized if `plan` has
    its value range. Raise ProofError, naming the tensor or node, at the first violation."""
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.dtype in _INTEGERS:
            raise ProofError(
                f"{value.name}: this input or output of the graph is {value.dtype.name.lower()}, and must be float"
            )
    for node in model.graph:
        for value in node.outputs:
            if value.shape is None or not all(isinstance(size, int) for size in value.shape):
                raise ProofError(
                    f"{node.name}: a neural processor needs fixed sizes, and this output has {value.shape}"
                )
    consumers: dict[str | None, list[ir.Node]] = {}
    for node in model.graph:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            consumers.setdefault(_dequantized(node.inputs[1]), []).append(node)
    for name, scheme in plan.schemes.items():
        if scheme.activation != "int16":
            continue
        if name not in consumers:
            raise ProofError(f"{name}: no convolution or matrix product reads this weight as integers")
        for node in consumers[name]:
            if not _is_rounded(node.inputs[0]):
                raise ProofError(
                    f"{node.name}: its input is not the output of a DequantizeLinear of uint16, as w8a16 requires"
                )
            result = node.outputs[0]
            after = ["the caller"] * result.is_graph_output() + [user.op_type for user, _ in result.uses()]
            if name in plan.outputs and after != ["QuantizeLinear"]:
                raise ProofError(
                    f"{node.name}: its output must only go to a QuantizeLinear to uint16, as w8a16 requires"
                )


def _dequantized(value: ir.Value | None) -> str | None:
    """Return the name of the initializer that `value` is the DequantizeLinear of, after a Cast of int4; None if it is
    none."""
    for op in ("DequantizeLinear", "Cast"):
        producer = value.producer() if value is not None else None
        if producer is not None and producer.op_type == op:
            value = producer.inputs[0]
    return value.name if value is not None and value.is_initializer() and value.dtype in _INTEGERS else None


def _is_rounded(value: ir.Value | None) -> bool:
    for op in ("DequantizeLinear", "QuantizeLinear"):
        producer = value.producer() if value is not None else None
        if producer is None or producer.op_type != op:
            return False
        value = producer.inputs[0]
    return producer is not None and producer.outputs[0].dtype == ir.DataType.UINT16


def _missing_kernel(node: ir.Node, opset: int) -> str | None:
    """Return the opset or types for which no kernel of the node exists, in words, None if one exists."""
    schemas = [s for s in _schemas().get((node.domain, node.op_type), []) if s.since_version <= opset]
    if not schemas:
        return f"of opset {opset}"
    schema = max(schemas, key=lambda s: s.since_version)
    kernels = [
        kernel
        for kernel in _kernels().get((node.domain, node.op_type), [])
        if kernel.version_range[0] <= schema.since_version <= kernel.version_range[1]
    ]
    if not kernels:
        return f"of opset {opset}"
    types = _types(node, schema)
    if any(all(types.get(key, ok[0]) in ok for key, ok in kernel.type_constraints.items()) for kernel in kernels):
        return None
    return "with " + ", ".join(sorted(set(types.values())))


def _types(node: ir.Node, schema: Any) -> dict[str, str]:
    """Return the type of each input and output, by the two names that kernels constrain: its own and its type's."""
    types = {}
    for values, parameters in ((node.inputs, schema.inputs), (node.outputs, schema.outputs)):
        for index, value in enumerate(values):
            if value is not None and value.dtype is not None:
                parameter = parameters[min(index, len(parameters) - 1)]  # the last may be variadic
                kind = f"tensor({value.dtype.name.lower()})"
                types[parameter.name] = types[parameter.typeStr] = kind
    return types


@cache
def _kernels() -> dict[tuple[str, str], list[Any]]:
    found: dict[tuple[str, str], list[Any]] = {}
    for kernel in ort.get_all_opkernel_def():
        if kernel.provider == _PROVIDER:
            found.setdefault((kernel.domain, kernel.op_name), []).append(kernel)
    return found


@cache
def _schemas() -> dict[tuple[str, str], list[Any]]:
    found: dict[tuple[str, str], list[Any]] = {}
    for schema in ort.get_all_operator_schema():
        found.setdefault((schema.domain, schema.name), []).append(schema)
    return found
