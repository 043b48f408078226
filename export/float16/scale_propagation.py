"""The dataflow of a component, and the magnitude of each result: the exponents of weight rescaling are computed from
it.

The component is traced with its weights after the rewrites of the artifact, so that its results are the results of the
module, and every operator's rule is stated once, for ATen and the markers."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor, fx

from pocketdiffusion.export.component import Component, load_module
from pocketdiffusion.export.rewrites import apply_rewrites, in_parts, scale_rules
from pocketdiffusion.quantize.exponents import Flow
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.runner import Array

# The exponent of an operator's result, by the operator's name:
# - any, by its weights, whatever its inputs have:
_LINEAR = frozenset({"conv2d", "linear", "embedding"})
# - 0, whatever its inputs have; rewrites state which of their operators belong here too:
NORM = "norm"
_NORMS = {"group_norm": NORM, "layer_norm": NORM}
# - the exponent of the values, while queries and keys have 0, as rewrites state:
ATTENTION = "attention"
# - the one that all inputs share:
_ALIKE = frozenset(
    """
    add sub cat stack clone contiguous alias detach to _to_copy view reshape _unsafe_view flatten unflatten permute
    transpose unsqueeze squeeze expand slice select split chunk split_with_sizes getitem upsample_nearest2d mean sum
    dropout pad constant_pad_nd neg avg_pool2d
    """.split()
)
# - the exponent of its tensor, if its other operand is a number:
_SCALED = frozenset({"mul", "div"})
# Of all others inputs and results have 0.


@dataclass(frozen=True)
class Affine:
    """A convolution, a matrix product or a table: `weight` and `bias` are names of the state_dict."""

    source: str
    result: str
    weight: str
    bias: str | None


@dataclass(frozen=True)
class Norm:
    """A normalisation by the module at `path`, whose `eps` is rescaled."""

    source: str
    path: str


@dataclass(frozen=True)
class Dataflow:
    """The flow of results, and the operators with weights or an epsilon. Names are names of results, except for weights
    and modules."""

    flow: Flow
    affine: tuple[Affine, ...]
    norms: tuple[Norm, ...]


def follow(part: Component, rewrites: Sequence[str], inputs: Iterable[Mapping[str, Array]]) -> Dataflow:
    """Return the dataflow of a component with the largest magnitude of each result for `inputs`. Holds its weights in
    float32. A rewrite that computes layers in parts does not change their results, and is left out."""
    rewrites = [name for name in rewrites if name not in in_parts(rewrites)]
    module = load_module(part)
    apply_rewrites(module, rewrites)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, tuple(part.example(0).values()), strict=False).module()
    assert isinstance(program, fx.GraphModule)
    seen = _Magnitudes(program)
    with torch.no_grad():
        for case in inputs:
            seen.run(*(torch.from_numpy(case[tensor.name].copy()) for tensor in part.spec.inputs))
    return _dataflow(program.graph, seen.largest, {**_NORMS, **scale_rules(rewrites)})


class _Magnitudes(fx.Interpreter):
    def __init__(self, program: fx.GraphModule) -> None:
        super().__init__(program)
        self.largest: dict[str, float] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.op == "call_function" and isinstance(result, Tensor) and result.is_floating_point():
            largest = float(result.abs().max())
            if not isfinite(largest):
                raise ProofError(f"the result {n.name} is not finite in float32: no scaling brings it into float16")
            self.largest[n.name] = max(self.largest.get(n.name, 0.0), largest)
        return result


def _dataflow(graph: fx.Graph, largest: Mapping[str, float], rules: Mapping[str, str]) -> Dataflow:
    """Return the dataflow of a traced graph. `largest` is the largest magnitude of each result, `rules` has NORM or
    ATTENTION by the name of an operator."""
    ties: list[tuple[str, str]] = []
    fixed: set[str] = set()
    affine: list[Affine] = []
    norms: list[Norm] = []
    # An operator with several results has no magnitude of its own: its parts are traced back to its input.
    lists: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        kind = _kind(node)
        takes = [lists.get(source, source) for source in node.all_input_nodes if source.op != "get_attr"]
        if node.op == "call_function" and node.name not in largest and kind in _ALIKE and takes:
            lists[node] = takes[0]
            continue
        sources = [source.name for source in takes if source.name in largest]
        if kind in _LINEAR and (weights := _weights(node)):
            affine.append(Affine(takes[0].name, node.name, weights[0], weights[1] if len(weights) > 1 else None))
        elif rules.get(kind) == NORM:
            norms.append(Norm(takes[0].name, _path(node)))
            fixed.add(node.name)
        elif rules.get(kind) == ATTENTION:
            fixed |= set(sources[:2])
            ties.append((sources[-1], node.name))
        elif (kind in _ALIKE and not _adds_constant(node, kind)) or (kind in _SCALED and _by_number(node, kind)):
            ties += [(source, node.name) for source in sources]
            if len(sources) < len(node.all_input_nodes):  # an input of the graph among them, or a weight
                fixed.add(node.name)
        else:
            fixed |= {*sources, node.name}
    squared = frozenset(norm.source for norm in norms) & frozenset(largest)
    return Dataflow(Flow(largest, ties, frozenset(fixed) & frozenset(largest), squared), tuple(affine), tuple(norms))


def _kind(node: fx.Node) -> str:
    if node.op != "call_function":
        return node.op
    name = getattr(node.target, "_opname", None) or getattr(node.target, "__name__", str(node.target))
    return str(name).split(".")[0]


def _weights(node: fx.Node) -> list[str]:
    """Return the names of weight and bias; an empty list if one is computed, or is used by another operator too."""
    given = node.args[:1] if _kind(node) == "embedding" else node.args[1:3]
    found = [source for source in given if isinstance(source, fx.Node)]
    own = all(source.op == "get_attr" and len(source.users) == 1 for source in found)
    return [str(source.target) for source in found] if own else []


def _adds_constant(node: fx.Node, kind: str) -> bool:
    """Return True if a number is added, or is the value of a padding."""
    if kind in ("add", "sub"):
        return not all(isinstance(argument, fx.Node) for argument in node.args[:2])
    return kind in ("pad", "constant_pad_nd") and any(node.args[3 if kind == "pad" else 2 :])


def _by_number(node: fx.Node, kind: str) -> bool:
    """Return True if one tensor is multiplied, or divided, by a number."""
    one, other = (isinstance(argument, fx.Node) for argument in node.args[:2])
    return one != other and (one or kind == "mul")


def _path(node: fx.Node) -> str:
    """Return the path of the module that calls the operator. Raise ProofError if there is none."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    if not stack:
        raise ProofError(f"{node.name}: this normalisation belongs to no module, so that its eps cannot be changed")
    return str(stack[-1][0])
