"""Which result of an artifact belongs to which layer of the original, and what those results are in a run.

The folder is the registry: backends/NAME/taps.py reads the artifacts of format NAME, and holds

layers(path, weights) -> list[Layer]             in the order of execution; `weights` are the names of the matrices
open_tapped(path, spec, results) -> Tapped       runs the file, and gives those results of it too

A layer is a module of the original that has a matrix: a convolution, a linear layer, an embedding.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np

from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.engines.io_adapter import AdaptedRunner
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.runner import Array


@dataclass(frozen=True)
class Layer:
    """`module` is the original's name of it, `result` the artifact's name of what it gives."""

    module: str
    result: str


class Tapped(Protocol):
    """A runner of an artifact. `results` has, after each call, what the results that were asked for were."""

    @property
    def spec(self) -> GraphSpec: ...

    @property
    def results(self) -> Mapping[str, Array]: ...

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]: ...


def find_layers(folder: Path, format: str, graph: Graph, weights: Iterable[str]) -> list[Layer]:
    """Those of an artifact below `folder` that has just been written."""
    found: list[Layer] = import_module(f"pocketdiffusion.export.backends.{format}.taps").layers(
        folder / graph.path, weights
    )
    return found


@dataclass(frozen=True)
class LayerRunner:
    """Gives, for the pipeline's inputs, what each layer of an artifact gives: by module, in the order of execution, in
    the original's layout and scale: `exponents` are those of the manifest's `layer_exponents`."""

    format: str
    names: Mapping[str, str]
    runner: Tapped | AdaptedRunner
    tapped: Tapped
    exponents: Mapping[str, int] = field(default_factory=dict)

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return self.run(inputs)[1]

    def run(self, inputs: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
        """The outputs of the graph, and what the layers give."""
        outputs = self.runner(inputs)
        return outputs, {module: self._original(module, result) for module, result in self.names.items()}

    def _original(self, module: str, result: str) -> Array:
        value = canonical(self.tapped.results[result], self.format)
        exponent = self.exponents.get(module, 0)
        return np.ldexp(value.astype(np.float32), exponent) if exponent else value


def open_layers(folder: Path, format: str, graph: Graph) -> LayerRunner:
    """Of an artifact of a bundle, by the layers that its manifest names."""
    names = dict(graph.layers)
    module = import_module(f"pocketdiffusion.export.backends.{format}.taps")
    tapped: Tapped = module.open_tapped(folder / graph.path, graph.file_spec or graph.spec, tuple(names.values()))
    runner = tapped if graph.file_spec is None else AdaptedRunner(graph.spec, tapped, graph.transposes)
    return LayerRunner(format, names, runner, tapped, graph.layer_exponents)


def canonical(value: Array, format: str) -> Array:
    """A layer's result in the original's layout: pictures [batch, channels, height, width], tokens [batch, tokens,
    channels]. TFLite has channels last; in Core ML tokens may be [batch, channels, 1, tokens]."""
    if value.ndim != 4:
        return value
    if format == "tflite":
        return value.transpose(0, 3, 1, 2)
    return value[:, :, 0].transpose(0, 2, 1) if format == "coreml" and value.shape[2] == 1 else value
