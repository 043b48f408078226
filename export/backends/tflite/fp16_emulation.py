"""TFLite: after each operator the file gets a pair of CASTs that rounds its output, and a maximum as a graph output."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from pocketdiffusion.quantize.float16_range import Note
from pocketdiffusion.runtime.engines.mlprogram.execute import Arithmetic
from pocketdiffusion.runtime.engines.tflite import open_runner
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec
from pocketdiffusion.runtime.runner import Array, Runner, check_inputs

if TYPE_CHECKING:
    from pocketdiffusion.export.backends.tflite.draft import TfliteEditor

# Operators that only move values, which are rounded already.
MOVES = frozenset(
    """
    CAST CONCATENATION DEQUANTIZE EXPAND_DIMS GATHER PAD RESHAPE RESIZE_NEAREST_NEIGHBOR SLICE SPLIT SQUEEZE
    STRIDED_SLICE TRANSPOSE
    """.split()
)


@dataclass(frozen=True)
class TfliteReplay:
    """A runner that notes maxima. `noted` has, for each further output of the file, the operator and the tensor whose
    largest magnitude it is."""

    spec: GraphSpec
    runner: Runner
    noted: Mapping[str, tuple[str, str]]
    note: Note

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        check_inputs(self.spec, inputs)
        outputs = self.runner(inputs)
        for name, (operator, result) in self.noted.items():
            self.note(operator, result, float(outputs[name]))
        return {tensor.name: outputs[tensor.name] for tensor in self.spec.outputs}


def open_replay(path: Path, spec: GraphSpec, arithmetic: Arithmetic, note: Note) -> TfliteReplay:
    """Return a runner of the .tflite at `path`, by LiteRT's own kernels, that notes each operator's output."""
    from pocketdiffusion.export.backends.tflite.draft import TfliteEditor
    from pocketdiffusion.export.backends.tflite.file import read_model, write_model

    model = read_model(path)
    probes = _Probes(TfliteEditor(model, *model.subgraphs))
    for number in probes.results():
        probes.watch(number, rounding=arithmetic == "float16")
    probes.finish()
    further = tuple(TensorSpec(name, (), "float32") for name in probes.noted)
    with TemporaryDirectory(dir=path.parent) as scratch:
        write_model(model, Path(scratch) / "replay.tflite")
        runner = open_runner(Path(scratch) / "replay.tflite", GraphSpec(spec.name, spec.inputs, spec.outputs + further))
    return TfliteReplay(spec, runner, probes.noted, note)


class _Probes:
    """The operators to insert after the operators of one graph. `finish` inserts them all at once."""

    def __init__(self, draft: "TfliteEditor") -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema, self.draft, self.graph = schema, draft, draft.graph
        self.noted: dict[str, tuple[str, str]] = {}
        self.behind: dict[int, list[Any]] = {}  # by the number of the operator in the graph
        self.exact: dict[int, int] = {}  # the new output tensor of an operator whose old one gets the rounded values
        self.outputs: list[tuple[str, int]] = []

    def results(self) -> list[int]:
        """Return the numbers of the operators that compute a float32 output."""
        from pocketdiffusion.export.backends.tflite.file import operator_name

        self.names = [operator_name(self.draft.model, operator) for operator in self.graph.operators]
        return [
            number
            for number, operator in enumerate(self.graph.operators)
            if self.names[number] not in MOVES
            and self.graph.tensors[operator.outputs[0]].type == self.schema.TensorType.FLOAT32
        ]

    def watch(self, number: int, *, rounding: bool) -> None:
        """Add the rounding and the maximum of the output of operator `number`. Its tensor gets the rounded values, so
        that consumers need no change."""
        draft, result = self.draft, int(self.graph.operators[number].outputs[0])
        shape = self.graph.tensors[result].shape
        behind = self.behind.setdefault(number, [])
        if rounding:
            self.exact[number] = draft.tensor(f"exact_{number}", shape, "FLOAT32")
            half = draft.tensor(f"half_{number}", shape, "FLOAT16")
            behind.append(draft.operator("CAST", [self.exact[number]], half))
            behind.append(draft.operator("CAST", [half], result))
        magnitude = draft.tensor(f"magnitude_{number}", shape, "FLOAT32")
        largest = draft.tensor(f"largest_{number}", [], "FLOAT32")
        axes = draft.constant(f"axes_{number}", [len(shape)], "INT32", np.arange(len(shape), dtype=np.int32))
        maximum = draft.operator("REDUCE_MAX", [magnitude, axes], largest)
        maximum.builtinOptionsType = self.schema.BuiltinOptions.ReducerOptions
        maximum.builtinOptions = self.schema.ReducerOptionsT()
        behind += [draft.operator("ABS", [result], magnitude), maximum]
        name = f"largest_{number}"
        self.outputs.append((name, largest))
        self.noted[name] = (self.names[number], self.graph.tensors[result].name.decode())

    def finish(self) -> None:
        """Insert all operators into the graph, and add the maxima to the outputs of the signature."""
        operators = []
        for number, operator in enumerate(self.graph.operators):
            if number in self.exact:
                operator.outputs = [self.exact[number]]
            operators += [operator, *self.behind.get(number, ())]
        self.graph.operators = operators
        self.graph.outputs = [*self.graph.outputs, *(index for _, index in self.outputs)]
        for name, index in self.outputs:
            entry = self.schema.TensorMapT()
            entry.name, entry.tensorIndex = name.encode(), index
            self.draft.model.signatureDefs[0].outputs.append(entry)
