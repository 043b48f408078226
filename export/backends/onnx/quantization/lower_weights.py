"""Storing a plan's weights in an ONNX graph: the choice of the lowering of each weight and its operators."""

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from pocketdiffusion.export.backends.onnx.edit import Edit, rank
from pocketdiffusion.export.backends.onnx.lowering import Profile
from pocketdiffusion.export.backends.onnx.quantization.products import Activations, lower_product, unite_ranges
from pocketdiffusion.export.backends.onnx.quantization.qdq import lower_qdq
from pocketdiffusion.export.backends.onnx.quantization.quantized_values import (
    Extracts,
    dequantize,
    gather_quantized,
    put_gemm,
    put_rows,
)
from pocketdiffusion.export.backends.onnx.quantization.sites import Site, find_sites
from pocketdiffusion.export.backends.onnx.refusals import NARROW
from pocketdiffusion.export.backends.onnx.weights import Part, Weight, plain_part
from pocketdiffusion.quantize.scheme import Plan, Scheme
from pocketdiffusion.runtime.errors import ProofError

INTEGER_OPSET = 21  # the oldest with int4 and uint16; operators of opset 20 that the exporter emits are unchanged in it


def needs_opset(plan: Plan) -> bool:
    """Return True if a scheme of the plan needs `INTEGER_OPSET`."""
    return any(s.kind == "linear" and (s.bits <= NARROW or s.activation == "int16") for s in plan.schemes.values())


def lower_weights(model: ir.Model, weights: Mapping[ir.Value, Weight], plan: Plan, profile: Profile) -> list[Part]:
    """Change the graph so that it reads each weight as `plan` stores it, and return what is stored. Raise ProofError if
    a weight with integer activations belongs to an operator other than a convolution or a matrix product."""
    edit = Edit(model.graph)
    schemes = {value: plan.of(weight.name, weight.ref.shape) for value, weight in weights.items()}
    integers = [value for value, scheme in schemes.items() if scheme.kind == "linear" and value.uses()]
    sites = {value: find_sites(value, weights) for value in integers}
    calibrated = {
        weights[value].name: found for value, found in sites.items() if schemes[value].activation in ("int8", "int16")
    }
    activations = Activations(edit, unite_ranges(calibrated, plan.inputs))
    lowered: dict[ir.Value, list[Part]] = {}
    for value in _by_place(model.graph, sites):
        weight, scheme, extracts = weights[value], schemes[value], Extracts()
        biases: list[Part] = []
        if scheme.activation == "float":
            _dequantize(edit, value, weight, scheme, sites[value], extracts)
        elif not sites[value] or any(site.operator == "embedding" for site in sites[value]):
            raise ProofError(
                f"{weight.name}: its operator is not a convolution or matrix product: keep its input float"
            )
        elif scheme.activation == "int16":
            output_range = plan.outputs.get(weight.name)
            biases = lower_qdq(activations, weight, scheme, sites[value], weights, output_range, extracts)
        else:
            lower_product(activations, weight, scheme, sites[value], profile, extracts)
            if profile == "ort":
                model.opset_imports["com.microsoft"] = 1
        model.graph.inputs.remove(value)
        lowered[value] = [Part(weight, scheme, extracts), *biases]
    parts = []
    for value, weight in weights.items():
        parts += lowered[value] if value in lowered else [plain_part(value, weight, schemes[value])]
    return parts


def _by_place(graph: ir.Graph, sites: Mapping[ir.Value, Sequence[Site]]) -> list[ir.Value]:
    """Return the weights in the order of their operators in the graph, so that producers are changed before
    consumers."""
    places = {node: place for place, node in enumerate(graph)}
    return sorted(sites, key=lambda value: min(places[node] for node, _ in value.uses()))


def _dequantize(
    edit: Edit, value: ir.Value, weight: Weight, scheme: Scheme, sites: Sequence[Site], extracts: Extracts
) -> None:
    """Store the weight as integers and dequantize it before its operators, which compute in float32.

    A matrix product becomes a Gemm with the weight in the checkpoint's layout: onnxruntime fuses DequantizeLinear and
    MatMul to MatMulNBits, which rounds its input to int8, although the plan does not say so.
    """
    if sites and all(site.operator == "embedding" for site in sites):
        gather_quantized(edit, weight, scheme, sites, extracts)
        return
    users = {node for node, _ in value.uses()}
    anchor = sites[0].node if sites else next(node for node in edit.graph if node in users)
    dequantized = dequantize(edit, anchor, weight, scheme, extracts)
    ir.convenience.replace_all_uses_with(value, dequantized)
    for site in sites:
        if site.node.op_type == "MatMul":
            result = put_gemm(edit, site, put_rows(edit, site.node, site.x), dequantized, site.bias)
            if rank(site.output) != 2:
                result = edit.restore_shape(site.node, result, site.output)
            edit.replace(site.output, result, site.nodes)
