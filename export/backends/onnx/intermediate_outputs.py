"""ONNX: nodes are named by their modules, `unet.conv_in/Conv`; the last node of a module computes its output."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from math import prod
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import onnx_ir as ir

from pocketdiffusion.export.backends.intermediate_outputs import Layer
from pocketdiffusion.export.backends.onnx.execution_order import put_widened_weights_before_readers
from pocketdiffusion.export.backends.onnx.fp16_emulation import open_session
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.memory import mapping_large_blocks
from pocketdiffusion.runtime.runner import Array, check_inputs

# Operators on a module's input or output can have the module's name too.
_OTHERS = ("DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear", "Slice", "Split")


def layers(path: Path, weights: Iterable[str]) -> list[Layer]:
    """Return a layer for each module of `weights`, found only by the names of the nodes."""
    modules = {name.rpartition(".")[0] for name in weights}
    results: dict[str, str] = {}
    for node in ir.load(path).graph:
        module = str(node.name).partition("/")[0]
        if module in modules and node.op_type not in _OTHERS:
            results.pop(module, None)  # the last one, and in its place
            results[module] = str(node.outputs[0].name)
    return [Layer(module, result) for module, result in results.items()]


@dataclass(frozen=True)
class OnnxLayerOutputs:
    """A runner by onnxruntime with further outputs, float32, which it writes into a temporary file: the system can drop
    its pages, and all layers of a large model do not fit into memory. `wanted` has their shapes, None for one that is
    not known before the call and stays in memory."""

    spec: GraphSpec
    session: Any
    wanted: Mapping[str, tuple[int, ...] | None]
    results: dict[str, Array] = field(default_factory=dict)

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        check_inputs(self.spec, inputs)
        names = [tensor.name for tensor in self.spec.outputs]
        self.results.clear()  # the file of the last call goes with its arrays
        mapped = map_outputs({name: shape for name, shape in self.wanted.items() if shape is not None})
        try:
            found = self._run(inputs, names, mapped)
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise ProofError(f"{self.spec.name}: onnxruntime cannot run this graph: {error}") from None
        self.results.update((name, found[name]) for name in self.wanted)
        return {name: found[name] for name in names}

    def _run(self, inputs: Mapping[str, Array], names: list[str], mapped: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph, and return `names` and all `wanted` outputs, with those of `mapped` in its arrays."""
        binding = self.session.io_binding()
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        for name, array in mapped.items():
            binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        others = [name for name in dict.fromkeys([*names, *self.wanted]) if name not in mapped]
        for name in others:
            binding.bind_output(name)
        with mapping_large_blocks():
            self.session.run_with_iobinding(binding)
        values = dict(zip([*mapped, *others], binding.get_outputs(), strict=True))
        return {**{name: values[name].numpy() for name in others}, **mapped}


def map_outputs(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Return a float32 array of each shape, all in the pages of one temporary file, which lives as long as they."""
    counts = {name: prod(shape) for name, shape in shapes.items()}
    if not sum(counts.values()):
        return {}
    with TemporaryFile() as file:
        file.truncate(4 * sum(counts.values()))
        pages = np.asarray(np.memmap(file, np.float32, "r+"))
    ends = accumulate(counts.values())
    return {name: pages[end - counts[name] : end].reshape(shapes[name]) for name, end in zip(shapes, ends, strict=True)}


def open_with_outputs(path: Path, spec: GraphSpec, results: tuple[str, ...]) -> OnnxLayerOutputs:
    """Return a runner of the model.onnx at `path` that keeps the intermediate outputs named in `results`."""
    model = ir.load(path)
    put_widened_weights_before_readers(model.graph)
    found = {value.name: value for node in model.graph for value in node.outputs}
    for result in results:
        if found[result] not in model.graph.outputs:
            model.graph.outputs.append(found[result])
    wanted = {result: _fixed_shape(found[result]) for result in results}
    return OnnxLayerOutputs(spec, open_session(path, model), wanted)


def _fixed_shape(value: ir.Value) -> tuple[int, ...] | None:
    """Return the shape of a float32 value, None if a size is open or it has another dtype."""
    if value.shape is None or value.dtype != ir.DataType.FLOAT:
        return None
    sizes = tuple(size for size in value.shape if isinstance(size, int))
    return sizes if len(sizes) == len(value.shape) else None
