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
    "floats; one of int8 that is widened is held as float32 beside that; others are read where the file is mapped; "
    "activations: inputs, outputs and the tensors that are alive at once, and for each convolution a table of 8 bytes "
    "for each position of its kernel and its output; while it is loaded: the largest weight of these in float32 too"
)
_POINTER = 8  # bytes


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
    ends = {str(int(index)): _bytes(graph.tensors[int(index)]) for index in (*graph.inputs, *graph.outputs)}
    inner = {name: size for name, size in sizes.items() if name not in ends}
    # LiteRT has inputs and outputs in its own memory from the start, and XNNPACK all others in another.
    fixed = sum(ends.values()) + sum(_table(model, graph, operator) for operator in graph.operators)
    weights = [*_held(model, graph)]
    held = sum(size for size, _ in weights)
    return Memory(
        weights_bytes=held,
        loading_bytes=held + fixed + max((copy for _, copy in weights), default=0),
        activations_bytes=fixed + largest_live(operations, inner, (), ()),
        counted=_COUNTED,
    )


def _table(model: Any, graph: Any, operator: Any) -> int:
    """Return the bytes of XNNPACK's table for a convolution: for each position of its output, a pointer for each
    position of its kernel. A kernel of 1x1 that moves by one has none."""
    if operator_name(model, operator) != "CONV_2D":
        return 0
    _, down, across, _ = (int(size) for size in graph.tensors[operator.inputs[1]].shape)
    _, height, width, _ = (int(size) for size in graph.tensors[operator.outputs[0]].shape)
    options = operator.builtinOptions
    if down * across == 1 and (options is None or options.strideH * options.strideW == 1):
        return 0
    return _POINTER * down * across * height * width


def _held(model: Any, graph: Any) -> Iterator[tuple[int, int]]:
    """Yield, for each constant that an operator reads, its bytes in memory after the file is loaded, and those of the
    float32 that it is widened to before XNNPACK copies it."""
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
            yield floats * (1 + (in_products and TYPES[tensor.type] == "INT8")), floats * in_products
        else:
            yield _bytes(tensor), 0


def _bytes(tensor: Any) -> int:
    kind = tensor.type
    itemsize = {schema.TensorType.BOOL: 1}.get(kind) or np.dtype(TYPES[kind].lower()).itemsize
    return prod(int(size) for size in tensor.shape) * itemsize if tensor.shape is not None else itemsize
