"""Graphs that are split into parts: their calls in the program, and where the original has their tensors.

A tensor of a part is called as in the whole graph, or has one name in all parts, which is also the value's name in the
program.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count, takewhile
from typing import Any

from torch import Tensor, nn

from pocketdiffusion.export.component import Component, Inner
from pocketdiffusion.export.families.parts.graph_call import GraphCall, InnerTensor
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.program import DENOISE, Call, Program, graphs_of, text_to_image

Modules = Mapping[str, Mapping[str, nn.Module | None]]


def split_components(title: str, parts: Sequence[Component], number: int) -> list[Component]:
    """Return the components of the model `title`, each that can be split as `number` parts. Raise UserError if none can
    be split, or if one has fewer blocks."""
    if number == 1:
        return list(parts)
    if not any(part.split for part in parts):
        raise UserError(f"{title} has no UNet that can be split: leave out --split-unet")
    return [each for part in parts for each in (part.split(part, number) if part.split else [part])]


def parts_by_graph(parts: Sequence[Component]) -> dict[str, list[Component]]:
    """Return the parts of each graph that is split, in the order in which they run."""
    found: dict[str, list[Component]] = {}
    for part in parts:
        if part.part_of is not None:
            found.setdefault(part.part_of.whole, []).append(part)
    return found


def split_program(program: Program, parts: Sequence[Component]) -> Program:
    """Return the program with a call of each part in place of each call of a graph that is split."""
    found = parts_by_graph(parts)
    stages = [
        stage.model_copy(
            update={"calls": tuple(each for call in stage.calls for each in _calls(call, found.get(call.graph)))}
        )
        for stage in program.stages
    ]
    return program.model_copy(update={"stages": tuple(stages)})


def _calls(call: Call, parts: Sequence[Component] | None) -> list[Call]:
    if parts is None:
        return [call]
    return [
        Call(
            graph=part.spec.name,
            inputs={tensor.name: call.inputs.get(tensor.name, tensor.name) for tensor in part.spec.inputs},
            outputs={tensor.name: call.outputs.get(tensor.name, tensor.name) for tensor in part.spec.outputs},
        )
        for part in parts
    ]


def split_calls(calls: Mapping[str, GraphCall], modules: Modules, parts: Sequence[Component]) -> dict[str, GraphCall]:
    """Return how calls are recorded: each graph that is split as calls of its parts. `modules` are those that have the
    weights of each component."""
    found = dict(calls)
    for whole, own in parts_by_graph(parts).items():
        inner = {name: each for part in own if part.part_of for name, each in part.part_of.inner.items()}
        found[whole] = replace(
            calls[whole],
            inner={name: _inner_tensor(modules[whole], each) for name, each in inner.items()},
            parts={
                part.spec.name: (tuple(t.name for t in part.spec.inputs), tuple(t.name for t in part.spec.outputs))
                for part in own
            },
        )
    return found


def _inner_tensor(modules: Mapping[str, nn.Module | None], inner: Inner) -> InnerTensor:
    name, _, path = inner.path.partition(".")
    root = modules[name]
    assert root is not None

    def read(arguments: Mapping[str, Any], result: Any) -> Tensor:
        found = arguments[inner.argument] if inner.argument else result
        tensor: Tensor = found[0] if isinstance(found, tuple) else found
        return tensor

    return InnerTensor(root.get_submodule(path), read)


def split_modules(modules: Modules, parts: Sequence[Component]) -> dict[str, Mapping[str, nn.Module | None]]:
    """Return the modules that have the weights of each component: those of the whole for each of its parts."""
    found = parts_by_graph(parts)
    return {
        name: own for whole, own in modules.items() for name in [p.spec.name for p in found.get(whole, [])] or [whole]
    }


def count_parts(program: Program) -> int:
    """Return the number of parts that a graph of denoise is split into: of its graphs NAME_1 .. NAME_N, 1 if there are
    none."""
    graphs = graphs_of(text_to_image(program).get(DENOISE))
    first = next((name for name in graphs if name.endswith("_1")), None)
    if first is None:
        return 1
    return sum(1 for _ in takewhile(lambda number: f"{first[:-1]}{number}" in graphs, count(1)))
