"""Plans for TFLite, on `tiny_checkpoint` and on small parts, and what is emitted of them.

What the converter makes does not depend on the recipe (`tflite_tags`), so it converts each part once for all of them.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from test_tflite import REWRITES
from torch import Tensor, nn

from pocketdiffusion.export.backends.emission import emit
from pocketdiffusion.export.backends.tflite import convert as converter
from pocketdiffusion.export.backends.tflite.file import (
    is_constant,
)
from pocketdiffusion.export.component import Component, load_module
from pocketdiffusion.export.matrices import weights_of
from pocketdiffusion.export.quantization import open_quantized
from pocketdiffusion.export.targets import Artifact
from pocketdiffusion.quantize.qparams import ValueRange
from pocketdiffusion.quantize.scheme import Activation, Plan, Scheme
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.engines.tflite import open_runner
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.verify.tolerances import FLOORS_DB
from support.traced_parts import component_of, psnr

W8 = Scheme("linear", 8)
EXACT_DB = FLOORS_DB["float32", "float32"]


def artifact(rewrites: tuple[str, ...] = REWRITES) -> Artifact:
    return Artifact("tflite", "std", "w8", "gpu", rewrites)


def plan_of(part: Component, choose: Callable[[str, str], Scheme]) -> Plan:
    """`choose` gives the scheme of a weight by its name and its operator; spans are those of the example."""
    schemes = {name: choose(name, weight.operator) for name, weight in weights_of(part).items()}
    spans = spans_of(part) if any(s.activation == "int8" for s in schemes.values()) else ({}, {})
    return Plan("w8", schemes, *spans)


def weights_only(bits: int) -> Callable[[str, str], Scheme]:
    return lambda name, operator: Scheme("linear", bits)


def with_input(activation: Activation, *operators: str) -> Callable[[str, str], Scheme]:
    """Islands are the ends of the UNet and its time embedding."""

    def choose(name: str, operator: str) -> Scheme:
        island = any(word in name for word in ("conv_in", "conv_out", "time_embedding"))
        return replace(W8, activation=activation) if operator in operators and not island else W8

    return choose


def spans_of(part: Component) -> tuple[dict[str, ValueRange], dict[str, ValueRange]]:
    """What each operator takes and gives on the example, in the original."""
    module = load_module(part)
    taken: dict[str, ValueRange] = {}
    given: dict[str, ValueRange] = {}

    def note(name: str, owner: nn.Module, arguments: tuple[Tensor, ...], result: Tensor) -> None:
        for spans, x in ((taken, arguments[0]), (given, result)):
            spans[name] = ValueRange(min(0.0, float(x.min())), max(0.0, float(x.max())))

    for name, weight in weights_of(part).items():
        if weight.operator != "embedding":
            module.get_submodule(name.rpartition(".")[0]).register_forward_hook(partial(note, name))
    with torch.no_grad():
        module(*part.example(0).values())
    return taken, given


SCHEMES: Mapping[str, Callable[[str, str], Scheme]] = {
    "w8": weights_only(8),
    "3 bits": weights_only(3),
    "dynamic8": with_input("dynamic", "linear"),
    "dynamic": with_input("dynamic", "linear", "conv"),
    "w8a8": with_input("int8", "linear", "conv"),
}


@dataclass(frozen=True)
class Emitted:
    part: Component
    plan: Plan
    graph: Graph
    path: Path

    @property
    def inputs(self) -> dict[str, Array]:
        return {name: tensor.numpy() for name, tensor in self.part.example(0).items()}

    def run(self) -> dict[str, Array]:
        """Opening the runner compares names, dtypes and shapes with the spec."""
        return open_runner(self.path, self.part.spec, threads=1)(self.inputs)

    def worst(self, reference: Mapping[str, Array]) -> float:
        found = self.run()
        return min(psnr(reference[name], found[name]) for name in found)

    def torch(self) -> dict[str, Array]:
        """The original with the same plan."""
        return open_quantized(self.part, (), self.plan, litert=True)(self.inputs)


Emit = Callable[[str, str], Emitted]


@pytest.fixture(scope="module", name="converted_once")
def convert_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("converted")
    convert = converter._convert

    def convert_once(part: Component, module: nn.Module, path: Path) -> None:
        kept = folder / part.spec.name
        if not kept.exists():
            convert(part, module, kept)
        shutil.copyfile(kept, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(converter, "_convert", convert_once)
        yield


def weights_in(model: Any) -> dict[str, Any]:
    """The constants that are called as weights are, by name."""
    return {t.name.decode(): t for t in model.subgraphs[0].tensors if is_constant(model, t) and b"weight" in t.name}


class Small(nn.Module):
    """A convolution with a stride, and two products that take one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.a, self.b = nn.Linear(8, 16), nn.Linear(8, 16, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        tokens = self.conv(x).flatten(2).transpose(1, 2)
        return (self.a(tokens) * torch.sigmoid(self.b(tokens)),)


class Twins(nn.Module):
    """Equal weights, zero weights, a zero channel, a factor that the converter folds."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(8, 8) for _ in range(4))
        with torch.no_grad():
            self.a.weight[3] = 0
            self.b.weight.copy_(self.a.weight)
            self.c.weight.zero_()
            self.d.weight.zero_()

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.a(x) * 0.3 + torch.sigmoid(self.b(x)) * torch.tanh(self.c(x)) + torch.sigmoid(self.d(x)),)


class Sum(nn.Module):
    """Two weights of which the converter makes one."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (nn.functional.linear(x, self.a.weight + self.b.weight, self.a.bias + self.b.bias),)


class Shifted(nn.Module):
    """A vector that the converter takes for a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.shift = nn.Linear(8, 8, bias=False), nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.a(x) + self.shift,)


class Faint(nn.Module):
    """Weights that are small beside their bias."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        with torch.no_grad():
            self.a.weight.mul_(1e-4)
            self.a.bias.add_(1e4)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.a(x),)


class Table(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 8)

    def forward(self, ids: Tensor) -> tuple[Tensor]:
        return (self.table(ids),)


class Wide(nn.Module):
    """Weights that are too large for the converter to fold."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.a = nn.Conv2d(128, 256, 3, padding=1), nn.Linear(256, 512)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.a(self.conv(x).flatten(2).transpose(1, 2)),)


SHAPES: Mapping[type[nn.Module], tuple[int, ...]] = {Small: (1, 4, 8, 8), Wide: (1, 128, 4, 4)}


def small(folder: Path, build: type[nn.Module]) -> Component:
    """By the name of its class."""
    x = torch.randn(SHAPES.get(build, (1, 5, 8)), generator=torch.Generator().manual_seed(0))
    inputs = {"ids": torch.arange(5, dtype=torch.int32)[None]} if build is Table else {"x": x}
    with torch.no_grad():
        shape = tuple(build()(*inputs.values())[0].shape)
    return component_of(folder, build, inputs, {"y": shape}, {}, build.__name__)


def emit_small(folder: Path, build: type[nn.Module], choose: Callable[[str, str], Scheme]) -> Emitted:
    part = small(folder, build)
    plan = plan_of(part, choose)
    graph = emit(part, artifact(()), folder, open_batch=False, plan=plan)
    return Emitted(part, plan, graph, folder / graph.path)
