"""The places where an ONNX graph reads a weight: the torch operator, in the nodes to which the exporter lowered it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from pocketdiffusion.export.backends.onnx.edit import rank
from pocketdiffusion.export.backends.onnx.weights import Weight


@dataclass(frozen=True)
class Site:
    """One operator. `nodes` compute it, the last of them `output`: a Transpose of the weight if there is one, then
    `node`, then the Add of a bias. `x` is the operator's input; an embedding's are indices."""

    operator: Literal["conv", "linear", "embedding"]
    node: ir.Node
    bias: ir.Value | None
    output: ir.Value
    nodes: tuple[ir.Node, ...]

    @property
    def x(self) -> ir.Value:
        """Return the input in the current graph, where its producer may have been replaced."""
        x = self.node.inputs[1 if self.operator == "embedding" else 0]
        assert x is not None
        return x


def find_sites(value: ir.Value, weights: Mapping[ir.Value, Weight]) -> list[Site]:
    """Return all sites of one weight, [] if any other operator reads the weight."""
    found: list[Site] = []
    for node, index in value.uses():
        if node.op_type == "Transpose" and tuple(node.attributes["perm"].as_ints()) == (1, 0):
            products = node.outputs[0].uses()
            if not all(product.op_type == "MatMul" and place == 1 for product, place in products):
                return []
            found += [_matmul(node, product, weights[value], weights) for product, _ in products]
        elif node.op_type == "Conv" and index == 1 and _text(node, "auto_pad", "NOTSET") == "NOTSET":
            found.append(Site("conv", node, _bias(node), node.outputs[0], (node,)))
        elif node.op_type == "Gemm" and index == 1 and _is_linear(node):
            found.append(Site("linear", node, _bias(node), node.outputs[0], (node,)))
        elif node.op_type == "Gather" and index == 0 and _number(node, "axis", 0) == 0:
            found.append(Site("embedding", node, None, node.outputs[0], (node,)))
        else:
            return []
    return found


def ints(node: ir.Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """Return an attribute that is a list of integers, `default` if the node does not have it."""
    return tuple(node.attributes[name].as_ints()) if name in node.attributes else default


def _matmul(transpose: ir.Node, product: ir.Node, weight: Weight, weights: Mapping[ir.Value, Weight]) -> Site:
    """Return the site of a MatMul, with the Add of its own bias if that follows."""
    output = product.outputs[0]
    name = f"{weight.name.rpartition('.')[0]}.bias".lstrip(".")
    for node, index in output.uses():
        other = node.inputs[1 - index] if node.op_type == "Add" else None
        if other is not None and other in weights and weights[other].name == name and len(output.uses()) == 1:
            return Site("linear", product, other, node.outputs[0], (transpose, product, node))
    return Site("linear", product, None, output, (transpose, product))


def _is_linear(node: ir.Node) -> bool:
    """Return True if a Gemm is x W^T + b, with a bias that is a vector."""
    factors = (
        _number(node, "alpha", 1),
        _number(node, "beta", 1),
        _number(node, "transA", 0),
        _number(node, "transB", 0),
    )
    bias = _bias(node)
    return factors == (1, 1, 0, 1) and (bias is None or rank(bias) == 1)


def _bias(node: ir.Node) -> ir.Value | None:
    return node.inputs[2] if len(node.inputs) > 2 else None


def _number(node: ir.Node, name: str, default: float) -> float:
    return float(node.attributes[name].value) if name in node.attributes else default


def _text(node: ir.Node, name: str, default: str) -> str:
    return str(node.attributes[name].value) if name in node.attributes else default
