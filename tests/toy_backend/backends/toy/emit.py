"""Writes and reads toy files."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from operator import getitem
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export.graph_signature import InputKind
from torch.fx import Node

from pocketdiffusion.export.artifact import Artifact
from pocketdiffusion.export.backends.check_storable import check_storable
from pocketdiffusion.export.backends.emission import check_schemes
from pocketdiffusion.export.backends.intermediate_outputs import Layer
from pocketdiffusion.export.component import Component, read_weights
from pocketdiffusion.export.trace import trace
from pocketdiffusion.quantize.float16_range import Note
from pocketdiffusion.quantize.scheme import FLOAT16, Plan
from pocketdiffusion.runtime.bundle.graph_needs import Engine, Memory, Unit
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.engines.toy import ToyRunner, read_toy  # type: ignore[import-not-found]
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.runner import Array, Runner


def emit(part: Component, artifact: Artifact, folder: Path, *, open_batch: bool, plan: Plan) -> Graph:
    """Write toy/NAME.json and toy/NAME.npz below `folder`. Shapes are fixed."""
    check_schemes(plan, artifact)
    traced = trace(part, artifact.rewrites, open_batch=False)
    names = _names(traced.program)
    arrays = {}
    for name, weight in read_weights(part):
        scheme = plan.of(name, weight.shape)
        check_storable(name, weight, scheme)
        arrays[name] = weight.astype(np.float16) if scheme == FLOAT16 else weight
    calls = [_call(node, names) for node in traced.program.graph.nodes if node.op == "call_function"]
    (output,) = traced.program.graph.output_node().args
    home = folder / artifact.format
    home.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"calls": calls, "outputs": [names.get(node, node.name) for node in output]})
    (home / f"{part.spec.name}.json").write_text(text)
    np.savez(home / f"{part.spec.name}.npz", allow_pickle=False, **arrays)
    return Graph(
        path=f"{artifact.format}/{part.spec.name}.json",
        files=tuple(f"{artifact.format}/{part.spec.name}.{kind}" for kind in ("json", "npz")),
        spec=part.spec,
        profile=artifact.profile,
        recipe=artifact.recipe,
        storage=plan.storage,
        arithmetic="float32",
        compute_unit=artifact.compute_unit,
        rewrites=dict(traced.rewrites),
        ops=dict(sorted(Counter(call["operator"] for call in calls).items())),
        parameters=sum(array.size for array in arrays.values()),
    )


def _names(program: torch.export.ExportedProgram) -> dict[Node, str]:
    """Return the name in the file of each node that is not computed: an input's in the graph, a weight's own."""
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    names = {}
    for entry in program.graph_signature.input_specs:
        assert entry.kind in (InputKind.USER_INPUT, InputKind.PARAMETER, InputKind.BUFFER), entry
        names[nodes[entry.arg.name]] = entry.arg.name if entry.kind == InputKind.USER_INPUT else str(entry.target)
    return names


def _call(node: Node, names: Mapping[Node, str]) -> dict[str, Any]:
    operator = "getitem" if node.target is getitem else str(node.target)
    return {
        "name": node.name,
        "operator": operator,
        "args": _encode(list(node.args), names),
        "kwargs": _encode(dict(node.kwargs), names),
    }


def _encode(value: Any, names: Mapping[Node, str]) -> Any:
    if isinstance(value, Node):
        return {"tensor": names.get(value, value.name)}
    if isinstance(value, dict):
        return {key: _encode(each, names) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(each, names) for each in value]
    if isinstance(value, torch.dtype | torch.memory_format | torch.layout):
        return {"torch": str(value).removeprefix("torch.")}
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def layers(path: Path, weights: Iterable[str]) -> list[Layer]:
    """Return a layer for each call that takes one of `weights`."""
    wanted, found = set(weights), []
    for call in read_toy(path).calls:
        for name in (each["tensor"] for each in call["args"] if isinstance(each, dict) and "tensor" in each):
            if name in wanted:
                found.append(Layer(name.rpartition(".")[0], call["name"]))
    return found


@dataclass(frozen=True)
class ToyTapped:
    """`results` is filled by the runner."""

    runner: Runner
    results: dict[str, Array] = field(default_factory=dict)

    @property
    def spec(self) -> GraphSpec:
        return self.runner.spec

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return self.runner(inputs)


def open_with_outputs(path: Path, spec: GraphSpec, results: tuple[str, ...]) -> ToyTapped:
    """Return a runner that keeps `results`."""
    kept: dict[str, Array] = {}

    def observe(operator: str, name: str, value: torch.Tensor) -> torch.Tensor:
        if name in results:
            kept[name] = value.numpy().copy()
        return value

    return ToyTapped(ToyRunner(spec, read_toy(path), observe), kept)


def open_replay(path: Path, spec: GraphSpec, arithmetic: str, note: Note) -> Callable[..., Any]:
    """Return a runner that notes the largest magnitude of each result, rounded to float16 where asked."""

    def observe(operator: str, name: str, value: torch.Tensor) -> torch.Tensor:
        if not value.is_floating_point():
            return value
        value = value.half().float() if arithmetic == "float16" else value
        note(operator, name, float(value.abs().max()))
        return value

    runner: Callable[..., Any] = ToyRunner(spec, read_toy(path), observe)
    return runner


def needs(path: Path, graph: Graph) -> Engine:
    """Return the engine's name: any version will do."""
    return Engine(name="toyengine", least_version="1", tried=torch.__version__)


def units(path: Path, graph: Graph) -> dict[str, Unit]:
    """Return nothing: there is no other unit."""
    return {}


def count_memory(path: Path) -> Memory:
    """Return what the arrays take in float32."""
    size = sum(4 * array.size for array in read_toy(path).arrays.values())
    return Memory(weights_bytes=size, activations_bytes=None, counted="weights: in float32; activations: not counted")
