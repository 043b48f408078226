"""TFLite: the operators that take a weight as such. A constant has the weight's name."""

from collections.abc import Iterable
from pathlib import Path

from pocketdiffusion.export.layers import Layer


def layers(path: Path, weights: Iterable[str]) -> list[Layer]:
    """Of a .tflite, in the order in which it is run. Where an operator computes in integers, the result is the tensor
    that is float32 again. A table that was looked up while converting has no operator, and no layer."""
    from pocketdiffusion.export.backends.tflite_file import WEIGHT_OPERAND, operator_name, read_model

    model = read_model(path)
    (graph,) = model.subgraphs
    wanted = set(weights)
    names = {index: tensor.name.decode() for index, tensor in enumerate(graph.tensors)}
    holders = {index: name for index, name in names.items() if name in wanted}
    widened = {}  # by the tensor before a DEQUANTIZE, the one behind it
    for operator in graph.operators:
        if operator_name(model, operator) == "DEQUANTIZE":
            source, result = int(operator.inputs[0]), int(operator.outputs[0])
            widened[source] = result
            if source in holders:
                holders[result] = holders[source]
    found = []
    for operator in graph.operators:
        place = WEIGHT_OPERAND.get(operator_name(model, operator))
        if place is not None and int(operator.inputs[place]) in holders:
            result = int(operator.outputs[0])
            module = holders[int(operator.inputs[place])].removesuffix(".weight")
            found.append(Layer(module, names[widened.get(result, result)]))
    return found
