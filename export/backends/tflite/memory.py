"""The memory that LiteRT needs on a CPU with XNNPACK, which copies weights, counted from the file and not measured."""

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from pocketdiffusion.export.backends.live_tensors import Operation, largest_live
from pocketdiffusion.export.backends.tflite.file import (
    TYPES,
    WEIGHT_OPERAND,
    is_constant,
    operands,
    operator_name,
    read_model,
)
from pocketdiffusion.runtime.bundle.graph_needs import Memory

_PACKS = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}
_RESHAPES = {"RESHAPE", "SQUEEZE", "EXPAND_DIMS"}
_COUNTED = (
    "weights: XNNPACK's copy of each that a convolution or a matrix product takes, in float32 where the file has "
    "floats; one of int8 that is widened is held as float32 beside that; others are read where the file is mapped"
)


def count_memory(path: Path) -> Memory:
    """Return the memory in bytes that LiteRT needs for weights and activations of the graph in the file `path`."""
    model = read_model(path)
    (graph,) = model.subgraphs
    operations: list[Operation] = []
    sizes: dict[str, int] = {}
    for operator in graph.operators:
        kind = operator_name(model, operator)
        if kind == "DEQUANTIZE" and is_constant(model, graph.tensors[operator.inputs[0]]):
            continue
        writes = tuple(str(int(index)) for index in operator.outputs)
        sizes |= {name: _bytes(graph.tensors[int(name)]) for name in writes}
        operations.append(Operation(tuple(map(str, operands(operator))), writes, kind in _RESHAPES))
    inputs, outputs = ([str(int(index)) for index in ends] for ends in (graph.inputs, graph.outputs))
    sizes |= {name: _bytes(graph.tensors[int(name)]) for name in inputs}
    return Memory(
        weights_bytes=sum(_held(model, graph)),
        activations_bytes=largest_live(operations, sizes, inputs, outputs),
        counted=_COUNTED,
    )


def _held(model: Any, graph: Any) -> Iterator[int]:
    """Yield, for each constant that an operator reads, its bytes in memory after the file is loaded."""
    packed: set[int] = set()
    taken: set[int] = set()
    widened: dict[int, int] = {}
    for operator in graph.operators:
        kind = operator_name(model, operator)
        taken |= {*operands(operator)}
        if kind in _PACKS:
            packed.add(int(operator.inputs[WEIGHT_OPERAND[kind]]))
        if kind == "DEQUANTIZE" and is_constant(model, graph.tensors[operator.inputs[0]]):
            widened[int(operator.inputs[0])] = int(operator.outputs[0])
    for index in sorted(taken):
        tensor = graph.tensors[index]
        if not is_constant(model, tensor):
            continue
        if index in widened:
            floats = 4 * prod(int(size) for size in tensor.shape)
            in_products = widened[index] in packed
            yield floats * (1 + (in_products and TYPES[tensor.type] == "INT8"))
        else:
            yield _bytes(tensor)


def _bytes(tensor: Any) -> int:
    kind = tensor.type
    itemsize = {schema.TensorType.BOOL: 1}.get(kind) or np.dtype(TYPES[kind].lower()).itemsize
    return prod(int(size) for size in tensor.shape) * itemsize if tensor.shape is not None else itemsize
