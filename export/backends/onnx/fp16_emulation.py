"""ONNX: after each operator the graph gets a pair of Casts that rounds its output, and a maximum as a graph output."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
import onnx_ir as ir

from pocketdiffusion.export.backends.onnx.execution_order import put_widened_weights_before_readers
from pocketdiffusion.export.backends.onnx.weights import DATA
from pocketdiffusion.quantize.float16_range import Note
from pocketdiffusion.runtime.engines.mlprogram.execute import Arithmetic
from pocketdiffusion.runtime.engines.onnx import load_session, select_exact_sums
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.memory import mapping_large_blocks
from pocketdiffusion.runtime.runner import Array, check_inputs

_MODEL = "replay.onnx"
# Operators that only move values, which are rounded already.
MOVES = frozenset(
    "Cast Concat Constant Flatten Gather Identity Reshape Resize Slice Split Squeeze Transpose Unsqueeze".split()
)
_FATAL = 4


@dataclass(frozen=True)
class OnnxReplay:
    """A runner that notes maxima. `noted` has, for each further output of the session, the operator and the tensor
    whose largest magnitude it is."""

    spec: GraphSpec
    session: Any
    noted: Mapping[str, tuple[str, str]]
    note: Note

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        check_inputs(self.spec, inputs)
        names = [tensor.name for tensor in self.spec.outputs]
        try:
            with mapping_large_blocks():
                outputs = self.session.run([*names, *self.noted], dict(inputs))
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise ProofError(f"{self.spec.name}: onnxruntime cannot replay this graph: {error}") from None
        for (operator, result), largest in zip(self.noted.values(), outputs[len(names) :], strict=True):
            self.note(operator, result, float(largest))
        return dict(zip(names, outputs, strict=False))


def open_replay(path: Path, spec: GraphSpec, arithmetic: Arithmetic, note: Note) -> OnnxReplay:
    """Return a runner of the model.onnx at `path`, whose data file is next to it, that notes each operator's output."""
    model = ir.load(path)
    put_widened_weights_before_readers(model.graph)
    noted = _instrument(model, rounding=arithmetic == "float16")
    return OnnxReplay(spec, open_session(path, model, path.parent.parent), noted, note)


def open_session(path: Path, model: ir.Model, beside: Path | None = None) -> Any:
    """Return a session of `model`, a changed copy of the file at `path`, whose data it reads. onnxruntime's graph
    optimizations are off, so that all operators stay, except where exact sums of int8 need them. While it loads, the
    model is in a temporary folder below `beside`, by default the system's; nothing is written into a bundle. Raise
    ProofError if onnxruntime cannot load it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if any(node.op_type.startswith("MatMulInteger") for node in model.graph) and select_exact_sums(options):
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    # In the order of the file: by default the maxima, which nothing reads, come last, and all results wait for them.
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    options.enable_cpu_mem_arena = options.enable_mem_pattern = options.enable_mem_reuse = False  # as the runtime does
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with TemporaryDirectory(dir=beside) as scratch:
        _place(path.parent / DATA, Path(scratch) / DATA)
        onnx.save(ir.to_proto(model), Path(scratch) / _MODEL)
        return load_session(Path(scratch) / _MODEL, options)


def _place(source: Path, target: Path) -> None:
    """Link or copy the file `source` to `target`. onnxruntime follows only hard links out of a model's folder, which
    some file systems do not have."""
    try:
        os.link(source.resolve(), target)  # in the hub's cache a file is a link itself
    except OSError:
        shutil.copyfile(source, target)


def _instrument(model: ir.Model, *, rounding: bool) -> dict[str, tuple[str, str]]:
    """Add an output with the largest magnitude of each float32 operator to `model`, in place. Return, by the new
    output, the operator and the name of its tensor."""
    noted = {}
    outputs = set(model.graph.outputs)
    for node in list(model.graph):
        for value in node.outputs:
            if node.op_type in MOVES or value.dtype != ir.DataType.FLOAT or not (value.uses() or value in outputs):
                continue
            seen = _rounded(model, node, value) if rounding else value
            magnitude = ir.node("Abs", [seen], name=f"{value.name}/Abs")
            largest = ir.node("ReduceMax", [magnitude.outputs[0]], {"keepdims": 0}, name=f"{value.name}/ReduceMax")
            model.graph.insert_after(seen.producer() or node, [magnitude, largest])
            largest.outputs[0].name = f"{value.name}/largest"
            largest.outputs[0].type, largest.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([])
            model.graph.outputs.append(largest.outputs[0])
            noted[f"{value.name}/largest"] = (node.op_type, node.name or str(value.name))
    return noted


def _rounded(model: ir.Model, node: ir.Node, value: ir.Value) -> ir.Value:
    """Return `value` after a Cast to float16 and back, which replaces all uses of `value`."""
    half = ir.node("Cast", [value], {"to": ir.DataType.FLOAT16}, name=f"{value.name}/half")
    single = ir.node("Cast", [half.outputs[0]], {"to": ir.DataType.FLOAT}, name=f"{value.name}/rounded")
    rounded = single.outputs[0]
    rounded.type, rounded.shape = value.type, value.shape
    ir.convenience.replace_all_uses_with(value, rounded, replace_graph_outputs=True)
    half.replace_input_with(0, value)
    rounded.name, value.name = value.name, f"{value.name}/exact"
    half.name = f"{rounded.name}/half"
    model.graph.insert_after(node, [half, single])
    return rounded
