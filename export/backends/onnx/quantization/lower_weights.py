"""How a plan's weights are stored in an ONNX graph, and what its operators compute in: which lowering takes which."""

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from pocketdiffusion.export.backends.onnx.edit import Edit, rank
from pocketdiffusion.export.backends.onnx.lowering import Profile
from pocketdiffusion.export.backends.onnx.quantization.products import Activations, lower_product, unite_spans
from pocketdiffusion.export.backends.onnx.quantization.qdq import lower_qdq
from pocketdiffusion.export.backends.onnx.quantization.quantized_values import (
    Taken,
    dequantize,
    gather_codes,
    put_gemm,
    put_rows,
)
from pocketdiffusion.export.backends.onnx.quantization.sites import Site, find_sites
from pocketdiffusion.export.backends.onnx.refusals import NARROW
from pocketdiffusion.export.backends.onnx.weights import Part, Weight, plain_part
from pocketdiffusion.quantize.scheme import Plan, Scheme
from pocketdiffusion.runtime.errors import ProofError

INTEGER_OPSET = 21  # the oldest with int4 and uint16; all that the exporter emits of opset 20 means the same there


def needs_opset(plan: Plan) -> bool:
    """Whether the graph needs `INTEGER_OPSET`."""
    return any(s.kind == "linear" and (s.bits <= NARROW or s.activation == "int16") for s in plan.schemes.values())


def lower_weights(model: ir.Model, weights: Mapping[ir.Value, Weight], plan: Plan, profile: Profile) -> list[Part]:
    """Changes the graph so that it takes each weight as `plan` says, and says what is stored for it. Raises ProofError
    where a weight is to meet integers in something else than a convolution or a matrix product."""
    edit = Edit(model.graph)
    schemes = {value: plan.of(weight.name, weight.ref.shape) for value, weight in weights.items()}
    integers = [value for value, scheme in schemes.items() if scheme.kind == "linear" and value.uses()]
    sites = {value: find_sites(value, weights) for value in integers}
    calibrated = {
        weights[value].name: found for value, found in sites.items() if schemes[value].activation in ("int8", "int16")
    }
    activations = Activations(edit, unite_spans(calibrated, plan.inputs))
    lowered: dict[ir.Value, list[Part]] = {}
    for value in _by_place(model.graph, sites):
        weight, scheme, taken = weights[value], schemes[value], Taken()
        biases: list[Part] = []
        if scheme.activation == "float":
            _dequantize(edit, value, weight, scheme, sites[value], taken)
        elif not sites[value] or any(site.operator == "embedding" for site in sites[value]):
            raise ProofError(f"{weight.name}: no convolution or matrix product, whose input could be integers")
        elif scheme.activation == "int16":
            given = plan.outputs.get(weight.name)
            biases = lower_qdq(activations, weight, scheme, sites[value], weights, given, taken)
        else:
            lower_product(activations, weight, scheme, sites[value], profile, taken)
            if profile == "ort":
                model.opset_imports["com.microsoft"] = 1
        model.graph.inputs.remove(value)
        lowered[value] = [Part(weight, scheme, taken), *biases]
    parts = []
    for value, weight in weights.items():
        parts += lowered[value] if value in lowered else [plain_part(value, weight, schemes[value])]
    return parts


def _by_place(graph: ir.Graph, sites: Mapping[ir.Value, Sequence[Site]]) -> list[ir.Value]:
    """The weights in the order in which the graph takes them: what gives an operator's input is changed before it."""
    places = {node: place for place, node in enumerate(graph)}
    return sorted(sites, key=lambda value: min(places[node] for node, _ in value.uses()))


def _dequantize(
    edit: Edit, value: ir.Value, weight: Weight, scheme: Scheme, sites: Sequence[Site], taken: Taken
) -> None:
    """The weight alone is integers: it becomes float32 where an operator takes it.

    A matrix product becomes a Gemm, which takes the weight as it lies in the checkpoint: of DequantizeLinear and MatMul
    onnxruntime makes MatMulNBits, which rounds what it takes to int8 although nobody asked for that.
    """
    if sites and all(site.operator == "embedding" for site in sites):
        gather_codes(edit, weight, scheme, sites, taken)
        return
    users = {node for node, _ in value.uses()}
    anchor = sites[0].node if sites else next(node for node in edit.graph if node in users)
    whole = dequantize(edit, anchor, weight, scheme, taken)
    ir.convenience.replace_all_uses_with(value, whole)
    for site in sites:
        if site.node.op_type == "MatMul":
            result = put_gemm(edit, site, put_rows(edit, site.node, site.x), whole, site.bias)
            if rank(site.output) != 2:
                result = edit.restore_shape(site.node, result, site.output)
            edit.replace(site.output, result, site.nodes)
