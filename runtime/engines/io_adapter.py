"""Adapt a runner of a file whose tensors have other names, shapes or dtypes than the pipeline's graph.

The manifest states all differences (`Graph.file_spec`, `Graph.transposes`), so that an app does the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec
from pocketdiffusion.runtime.runner import Array, Runner, check_inputs


@dataclass(frozen=True)
class AdaptedRunner:
    """`inner` has the tensors of `spec` in the same order. Calling it raises ValueError if inputs do not match
    `spec`."""

    spec: GraphSpec
    inner: Runner
    transposes: Mapping[str, tuple[int, ...]]

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        check_inputs(self.spec, inputs)
        given = {}
        for own, file in zip(self.spec.inputs, self.inner.spec.inputs, strict=True):
            array = inputs[own.name]
            array = array.transpose(self.transposes[own.name]) if own.name in self.transposes else array
            given[file.name] = np.ascontiguousarray(array.reshape(_sizes(file)), np.dtype(file.dtype))
        outputs = self.inner(given)
        found = {}
        for own, file in zip(self.spec.outputs, self.inner.spec.outputs, strict=True):
            sizes = _sizes(own)
            axes = self.transposes.get(own.name, tuple(range(len(sizes))))
            array = outputs[file.name].reshape([sizes[axis] for axis in axes])
            found[own.name] = np.ascontiguousarray(array.transpose(np.argsort(axes)), np.dtype(own.dtype))
        return found


def _sizes(tensor: TensorSpec) -> list[int]:
    """Return the shape of a tensor whose dimensions are all fixed."""
    return [int(size) for size in tensor.shape]
