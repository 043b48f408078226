"""TFLite: layers are the operators that read a weight. The constant of a weight has its name."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from pocketdiffusion.export.backends.intermediate_outputs import Layer
from pocketdiffusion.runtime.engines.tflite import open_runner
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec
from pocketdiffusion.runtime.runner import Array, Runner


def layers(path: Path, weights: Iterable[str]) -> list[Layer]:
    """Return the layers of the .tflite at `path` in the order of execution. The output of an operator in integers is
    the dequantized tensor; the output of an int8 embedding is its rows times their scales. An embedding whose lookup
    the converter computed in advance has no operator in the file, and is left out."""
    from pocketdiffusion.export.backends.tflite.file import TYPES, WEIGHT_OPERAND, operator_name, read_model

    model = read_model(path)
    (graph,) = model.subgraphs
    wanted = set(weights)
    names = {index: tensor.name.decode() for index, tensor in enumerate(graph.tensors)}
    holders = {index: name for index, name in names.items() if name in wanted}
    widened = {}  # {input of a DEQUANTIZE: its output}
    for operator in graph.operators:
        if operator_name(model, operator) == "DEQUANTIZE":
            source, result = int(operator.inputs[0]), int(operator.outputs[0])
            widened[source] = result
            if source in holders:
                holders[result] = holders[source]
    scaled = {
        int(operator.inputs[0]): int(operator.outputs[0])
        for operator in graph.operators
        if operator_name(model, operator) == "MUL"
    }
    found = []
    for operator in graph.operators:
        place = WEIGHT_OPERAND.get(operator_name(model, operator))
        if place is not None and int(operator.inputs[place]) in holders:
            result = int(operator.outputs[0])
            is_quantized = TYPES[graph.tensors[int(operator.inputs[place])].type] == "INT8"
            if is_quantized and operator_name(model, operator) == "EMBEDDING_LOOKUP":
                result = scaled[result]
            module = holders[int(operator.inputs[place])].removesuffix(".weight")
            found.append(Layer(module, names[widened.get(result, result)]))
    return found


@dataclass(frozen=True)
class TfliteLayerOutputs:
    """A runner by LiteRT with further outputs in the file's signature, under the names of their tensors."""

    spec: GraphSpec
    runner: Runner
    results: dict[str, Array] = field(default_factory=dict)

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        outputs = self.runner(inputs)
        own = {tensor.name for tensor in self.spec.outputs}
        self.results.update((name, value) for name, value in outputs.items() if name not in own)
        return {name: outputs[name] for name in own}


def open_with_outputs(path: Path, spec: GraphSpec, results: tuple[str, ...]) -> TfliteLayerOutputs:
    """Return a runner of the .tflite at `path` that keeps the intermediate outputs named in `results`."""
    from ai_edge_litert import schema_py_generated as schema

    from pocketdiffusion.export.backends.tflite.file import read_model, write_model

    model = read_model(path)
    (graph,) = model.subgraphs
    places = {tensor.name.decode(): index for index, tensor in enumerate(graph.tensors)}
    further = []
    for result in results:
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = result.encode(), places[result]
        model.signatureDefs[0].outputs.append(entry)
        if places[result] not in graph.outputs:
            graph.outputs = [*graph.outputs, places[result]]
        further.append(TensorSpec(result, tuple(int(n) for n in graph.tensors[places[result]].shape), "float32"))
    with TemporaryDirectory() as scratch:
        write_model(model, Path(scratch) / "tapped.tflite")
        extended = GraphSpec(spec.name, spec.inputs, spec.outputs + tuple(further))
        return TfliteLayerOutputs(spec, open_runner(Path(scratch) / "tapped.tflite", extended))
