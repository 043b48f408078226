"""ONNX: nodes are named by their modules, `unet.conv_in/Conv`; the last node of a module computes its output."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir

from pocketdiffusion.export.backends.intermediate_outputs import Layer
from pocketdiffusion.export.backends.onnx.execution_order import put_widened_weights_before_readers
from pocketdiffusion.export.backends.onnx.fp16_emulation import open_session
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.graph_spec import GraphSpec
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
    """A runner by onnxruntime with further outputs."""

    spec: GraphSpec
    session: Any
    wanted: tuple[str, ...]
    results: dict[str, Array] = field(default_factory=dict)

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        check_inputs(self.spec, inputs)
        names = [tensor.name for tensor in self.spec.outputs]
        try:
            found = self.session.run([*names, *self.wanted], dict(inputs))
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise ProofError(f"{self.spec.name}: onnxruntime cannot run this graph: {error}") from None
        outputs = dict(zip([*names, *self.wanted], found, strict=True))
        self.results.update((name, outputs[name]) for name in self.wanted)
        return {name: outputs[name] for name in names}


def open_with_outputs(path: Path, spec: GraphSpec, results: tuple[str, ...]) -> OnnxLayerOutputs:
    """Return a runner of the model.onnx at `path` that keeps the intermediate outputs named in `results`."""
    model = ir.load(path)
    put_widened_weights_before_readers(model.graph)
    found = {value.name: value for node in model.graph for value in node.outputs}
    for result in results:
        if found[result] not in model.graph.outputs:
            model.graph.outputs.append(found[result])
    return OnnxLayerOutputs(spec, open_session(path, model), results)
