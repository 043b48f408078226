"""Intermediate outputs of an artifact: the tensor that corresponds to each layer of the original, and its values.

A backend's `layers` finds the tensors in a file, and its `open_with_outputs` runs the file with them as further
outputs. A layer is a module of the original that has a matrix: a convolution, a linear layer, an embedding.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from pocketdiffusion.export.backends import find_backend
from pocketdiffusion.export.backends.backend import Layout
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.engines.io_adapter import AdaptedRunner
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.runner import Array


@dataclass(frozen=True)
class Layer:
    """`module` is the layer's name in the original, `result` the name of its output tensor in the artifact."""

    module: str
    result: str


class LayerOutputsRunner(Protocol):
    """A runner of an artifact. After each call, `results` has the requested intermediate outputs by name."""

    @property
    def spec(self) -> GraphSpec: ...

    @property
    def results(self) -> Mapping[str, Array]: ...

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]: ...


@dataclass(frozen=True)
class LayerRunner:
    """Computes the output of each layer of an artifact: by module, in the order of execution, in the original's layout
    and scale. `exponents` are the manifest's `layer_exponents`, powers of two by module."""

    format: str
    names: Mapping[str, str]
    runner: LayerOutputsRunner | AdaptedRunner
    tapped: LayerOutputsRunner
    exponents: Mapping[str, int] = field(default_factory=dict)

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return self.run(inputs)[1]

    def run(self, inputs: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return the outputs of the graph, and the outputs of its layers by module, for `inputs` of the graph."""
        outputs = self.runner(inputs)
        return outputs, {module: self._original(module, result) for module, result in self.names.items()}

    def _original(self, module: str, result: str) -> Array:
        value = canonical(self.tapped.results[result], find_backend(self.format).layout)
        exponent = self.exponents.get(module, 0)
        return np.ldexp(value.astype(np.float32), exponent) if exponent else value


def open_layers(folder: Path, format: str, graph: Graph) -> LayerRunner:
    """Open an artifact of a bundle with the outputs of all layers that its manifest names."""
    names, backend = dict(graph.layers), find_backend(format)
    tapped = backend.open_with_outputs(folder / graph.path, graph.file_spec or graph.spec, tuple(names.values()))
    runner = tapped if graph.file_spec is None else AdaptedRunner(graph.spec, tapped, graph.transposes)
    return LayerRunner(format, names, runner, tapped, graph.layer_exponents)


def canonical(value: Array, layout: Layout) -> Array:
    """Return a layer's output in the original's layout: pictures [batch, channels, height, width], tokens [batch,
    tokens, channels]."""
    if value.ndim != 4:
        return value
    if layout == "channels_last":
        return value.transpose(0, 3, 1, 2)
    return value[:, :, 0].transpose(0, 2, 1) if layout == "tokens_last" and value.shape[2] == 1 else value
