"""For the tests of integers in ONNX graphs: one component with every kind of operator, plans for it, and what torch
makes of the same plan."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from pocketdiffusion.export.backends.emission import emit
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.matrices import weights_of
from pocketdiffusion.export.quantization import open_quantized
from pocketdiffusion.export.reference.torch_runner import open_rewritten
from pocketdiffusion.quantize.qparams import ValueRange
from pocketdiffusion.quantize.scheme import Activation, Plan, Scheme
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.engines.onnx import open_runner
from pocketdiffusion.runtime.runner import Array, Runner
from support.traced_parts import artifact, component_of

WIDTH, VOCABULARY = 64, 300


class Operators(nn.Module):
    """Each operator takes an input of the graph and gives an output of it, so that no rounding follows another."""

    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Conv2d(WIDTH, 24, 3, padding=1)
        self.down = nn.Conv2d(WIDTH, 24, 3, stride=2, padding=1)
        self.wide = nn.Conv2d(WIDTH, 24, (3, 5), padding=(0, 2), dilation=(2, 1), bias=False)
        self.point = nn.Conv2d(WIDTH, 24, 1)
        self.to_q, self.to_k = nn.Linear(WIDTH, 32, bias=False), nn.Linear(WIDTH, 32, bias=False)
        self.to_out = nn.Linear(WIDTH, 32)
        self.row, self.bare = nn.Linear(WIDTH, 48), nn.Linear(WIDTH, 48, bias=False)

    def forward(self, picture: Tensor, tokens: Tensor, vector: Tensor) -> tuple[Tensor, ...]:
        pictures = (self.same(picture), self.down(picture), self.wide(picture), self.point(picture))
        return (
            *pictures,
            self.to_q(tokens),
            self.to_k(tokens),
            self.to_out(tokens),
            self.row(vector),
            self.bare(vector),
        )


class Words(nn.Module):
    """Two embeddings, as a text encoder has them, one of them with fixed indices."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(7, WIDTH)

    def forward(self, ids: Tensor) -> tuple[Tensor]:
        return (self.token(ids) + self.position(torch.arange(7)),)


def operators(folder: Path) -> Component:
    generator = torch.Generator().manual_seed(3)
    inputs = {
        "picture": 2 * torch.randn(1, WIDTH, 11, 8, generator=generator) + 1,
        "tokens": torch.randn(1, 9, WIDTH, generator=generator),
        "vector": torch.rand(1, WIDTH, generator=generator),
    }
    outputs = {
        "same": (1, 24, 11, 8),
        "down": (1, 24, 6, 4),
        "wide": (1, 24, 7, 8),
        "point": (1, 24, 11, 8),
        "query": (1, 9, 32),
        "key": (1, 9, 32),
        "out": (1, 9, 32),
        "row": (1, 48),
        "bare": (1, 48),
    }
    return component_of(folder, Operators, inputs, outputs, {})


def words(folder: Path) -> Component:
    ids = torch.tensor([[3, 299, 0, 17, 17, 4, 250]])
    return component_of(folder, Words, {"ids": ids}, {"states": (1, 7, WIDTH)}, {})


def plan_for(
    part: Component,
    bits: int = 8,
    group: int = 0,
    activation: Activation = "float",
    calls: Sequence[Mapping[str, Array]] = (),
) -> Plan:
    """One scheme for all, but for what embeddings take. The spans are those of `calls`, by default of the part's
    example."""
    schemes = {
        name: Scheme("linear", bits, group, "float" if weight.operator == "embedding" else activation)
        for name, weight in weights_of(part).items()
    }
    inputs, outputs = calibrate(part, schemes, calls) if activation in ("int8", "int16") else ({}, {})
    return Plan("test", schemes, inputs, outputs)


def calibrate(
    part: Component, schemes: Mapping[str, Scheme], calls: Sequence[Mapping[str, Array]] = ()
) -> tuple[dict[str, ValueRange], dict[str, ValueRange]]:
    """What the operators take and give, by weight."""
    runner = open_rewritten(part, ())
    taken: dict[str, ValueRange] = {}
    given: dict[str, ValueRange] = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, arguments: tuple[Tensor, ...], result: Tensor) -> None:
            for spans, x in ((taken, arguments[0].float()), (given, result)):
                before = spans.get(name, ValueRange(0.0, 0.0))
                spans[name] = ValueRange(min(before.low, float(x.min())), max(before.high, float(x.max())))

        return hook

    for name in schemes:
        runner.module.get_submodule(name.rpartition(".")[0]).register_forward_hook(note(name))
    for inputs in calls or [example(part)]:
        runner(inputs)
    return taken, given


def example(part: Component) -> dict[str, Array]:
    return {name: tensor.numpy() for name, tensor in part.example(0).items()}


def emitted(
    part: Component, plan: Plan, folder: Path, profile: str = "ort", *, open_batch: bool = False
) -> tuple[Graph, Runner]:
    """The graph of one plan, and its runner."""
    folder.mkdir(exist_ok=True)
    graph = emit(part, replace(artifact(profile), recipe=plan.recipe), folder, open_batch=open_batch, plan=plan)
    return graph, open_runner(folder / graph.path, graph.spec, threads=1)


def in_torch(part: Component, plan: Plan) -> Runner:
    return open_quantized(part, (), plan)


def read(folder: Path, graph: Graph) -> onnx.ModelProto:
    """With its weights."""
    model: onnx.ModelProto = onnx.load(folder / graph.path)
    return model
