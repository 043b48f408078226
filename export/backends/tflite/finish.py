"""The last step for a converted TFLite file: naming its tensors, and removing everything that no interpreter reads."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from pocketdiffusion.export.backends.tflite.capabilities import RUNTIME, least_version
from pocketdiffusion.export.backends.tflite.file import (
    is_constant,
    operands,
    operator_name,
    write_model,
)


def finish(model: Any, path: Path, names: Collection[str]) -> None:
    """Clean the changed file `model` and write it to `path`. Constants whose name is in `names` keep it.

    Raise ProofError if the file would exceed the limit of the format.
    """
    for graph in model.subgraphs:
        _drop_unused(model, graph)
    _name_tensors(model, {name.encode() for name in names})
    _strip(model)
    _note_runtime(model)
    write_model(model, path)


def _drop_unused(model: Any, graph: Any) -> None:
    """Remove the tensors that are neither read nor computed by an operator, nor an input or output of the graph."""
    used = {int(index) for operator in graph.operators for index in (*operands(operator), *operator.outputs)}
    kept = sorted(used | {int(index) for index in (*graph.inputs, *graph.outputs)})
    places = {old: new for new, old in enumerate(kept)} | {-1: -1}
    graph.tensors = [graph.tensors[index] for index in kept]
    for holder in (graph, *graph.operators):
        holder.inputs = [places[int(index)] for index in holder.inputs]
        holder.outputs = [places[int(index)] for index in holder.outputs]
    for signature in model.signatureDefs or []:
        if model.subgraphs[signature.subgraphIndex] is graph:
            for entry in (*signature.inputs, *signature.outputs):
                entry.tensorIndex = places[entry.tensorIndex]


def _name_tensors(model: Any, kept: Collection[bytes]) -> None:
    """Name inputs and outputs by the signature, computed tensors by their operator, constants by number. The
    converter's names, which have Python classes in them, are lost."""
    for graph in model.subgraphs:
        for number, tensor in enumerate(graph.tensors):
            if tensor.name not in kept or not is_constant(model, tensor):
                tensor.name = f"constant_{number}".encode()
        for number, operator in enumerate(graph.operators):
            for place, index in enumerate(operator.outputs):
                suffix = f"_{place}" if place else ""
                graph.tensors[index].name = f"{operator_name(model, operator)}_{number}{suffix}".encode()
    for signature in model.signatureDefs or []:
        tensors = model.subgraphs[signature.subgraphIndex].tensors
        for entry in (*signature.outputs, *signature.inputs):
            tensors[entry.tensorIndex].name = entry.name


def _strip(model: Any) -> None:
    """Keep only what an interpreter reads: the buffers that are used, each once, and the kinds of operators that are
    used."""
    model.description = b"pocketdiffusion"
    model.metadata = [entry for entry in model.metadata or [] if entry.name == RUNTIME]
    model.metadataBuffer = None
    used = [tensor for graph in model.subgraphs for tensor in graph.tensors if is_constant(model, tensor)]
    places = {0: 0}
    for holder in (*used, *model.metadata):
        places.setdefault(int(holder.buffer), len(places))
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.buffer = places.get(int(tensor.buffer), 0)
    for entry in model.metadata:
        entry.buffer = places[int(entry.buffer)]
    model.buffers = [schema.BufferT() if old == 0 else model.buffers[old] for old in places]
    operators = [operator for graph in model.subgraphs for operator in graph.operators]
    kept = sorted({operator.opcodeIndex for operator in operators})
    for operator in operators:
        operator.opcodeIndex = kept.index(operator.opcodeIndex)
    model.operatorCodes = [model.operatorCodes[index] for index in kept]


def _note_runtime(model: Any) -> None:
    """Write the oldest TFLite version that has all operators into the metadata, where the converter noted its own."""
    needed = least_version(model)
    for entry in model.metadata:
        version = ".".join(map(str, needed)).encode().ljust(len(model.buffers[entry.buffer].data), b"\0")
        model.buffers[entry.buffer] = schema.BufferT(np.frombuffer(version, np.uint8))
