"""Trace a component to a program without having its weights in memory."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim, ExportedProgram
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._python_dispatch import TorchDispatchMode

from pocketdiffusion.export.component import Component
from pocketdiffusion.export.rewrites import apply_rewrites, check_sites, kept_sites, marks
from pocketdiffusion.runtime.graph_spec import TensorSpec

# Sites that need no rewrite: ATen has an operator of that name, and tracing does not decompose it.
ATEN_SITES: Mapping[str, Any] = {
    "gelu": torch.ops.aten.gelu.default,
    "group_norm": torch.ops.aten.group_norm.default,
    "layer_norm": torch.ops.aten.layer_norm.default,
    "silu": torch.ops.aten.silu.default,
}
_LARGEST_BATCH = 32  # diffusers runs other code from 64 on


@dataclass(frozen=True)
class Trace:
    """The parameters of `program` are fake: shapes and dtypes without values. `rewrites` counts the sites changed."""

    program: ExportedProgram
    rewrites: Mapping[str, int]


def trace(component: Component, rewrites: Sequence[str], *, open_batch: bool) -> Trace:
    """Return the rewritten component as an ATen program of static shapes, or with its batch open from 1 to 32.

    An open batch is dimension 0 of every input that has more than one; the timestep keeps its shape. Raise ProofError
    if the program's sites are not those that follow from the component's configuration.
    """
    with FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = component.build().eval().requires_grad_(False)
        changed = apply_rewrites(module, rewrites)
        inputs = tuple(_fake_input(spec, open_batch) for spec in component.spec.inputs)
        batch = Dim("batch", max=_LARGEST_BATCH)
        shapes: Any = tuple({0: batch} if open_batch and tensor.ndim > 1 else {} for tensor in inputs)
        kinds = [each.kind for each in signature(module.forward).parameters.values()]
        named = kinds.count(Parameter.POSITIONAL_OR_KEYWORD)
        if len(shapes) > named:  # the others are those of *args, which count as one argument
            shapes = (*shapes[:named], shapes[named:])
        program = torch.export.export(module, inputs, dynamic_shapes=shapes, strict=False)
    check_program(component, rewrites, program)
    return Trace(program, changed)


def count_calls(component: Component, rewrites: Sequence[str]) -> dict[str, int]:
    """Return {ATen operator: calls} of one forward pass of the rewritten component, most frequent first.

    A custom op counts as one call. Backends fuse and split operators, so their counts differ.
    """
    with FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True), torch.no_grad():
        module = component.build().eval()
        apply_rewrites(module, rewrites)
        inputs = [_fake_input(spec, open_batch=False) for spec in component.spec.inputs]
        counts = CallCounts()
        with counts:
            module(*inputs)
    return dict(counts.calls.most_common())


def count_kept(component: Component, rewrites: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return {rewrite: {reason: count}} of the component's modules that each rewrite does not change."""
    with FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True):
        return kept_sites(component.build(), rewrites)


class CallCounts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context that counts the operators that torch calls."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace != "prim":  # torch's own queries, such as for a device
            self.calls[func._schema.name] += 1
        return func(*args, **(kwargs or {}))


def check_program(component: Component, rewrites: Sequence[str], program: ExportedProgram) -> None:
    """Check the sites of `program` against the numbers that follow from the component's configuration. Raise ProofError
    if they differ."""
    targets = (node.target for node in program.graph.nodes if node.op == "call_function")
    check_calls(component, rewrites, Counter(t._schema.name for t in targets if isinstance(t, torch._ops.OpOverload)))


def check_calls(component: Component, rewrites: Sequence[str], calls: Mapping[str, int]) -> None:
    """Check the sites of any kind of traced program, as `check_program` does. `calls` has the number of calls of each
    operator, by the name of its schema, such as "aten::silu"."""
    kinds = {**{kind: (operator,) for kind, operator in ATEN_SITES.items()}, **marks(rewrites)}
    found = {kind: sum(calls.get(o._schema.name, 0) for o in operators) for kind, operators in kinds.items()}
    expected = {kind: count for kind, count in component.sites.items() if kind in kinds}
    check_sites(component.spec.name, expected, found)


def _fake_input(spec: TensorSpec, open_batch: bool) -> Tensor:
    """Return an input of zeros. An open batch has the size 2, since tracing makes a dimension of 1 a constant."""
    sizes = [int(size) for size in spec.shape]
    if open_batch and len(sizes) > 1:
        sizes[0] = 2
    return torch.zeros(sizes, dtype=getattr(torch, spec.dtype))
