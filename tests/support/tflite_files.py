"""Small TFLite files, written by hand, for tests that need no converter."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from pocketdiffusion.export.backends.tflite.file import write_model
from pocketdiffusion.runtime.runner import Array


@dataclass(frozen=True)
class Value:
    """A tensor of the file; `data` makes it a constant. `scales` are those of its channels along `axis`."""

    name: str
    shape: tuple[int, ...] = (1, 4)
    dtype: str = "FLOAT32"
    data: Array | None = None
    scales: tuple[float, ...] = ()
    zeros: tuple[int, ...] = (0,)
    axis: int = 0


def write_tflite(path: Path, values: Sequence[Value], operators: Sequence[tuple[str, str, str]], name: str) -> Path:
    """A file whose `operators` are (operator, what it takes, what it makes), the last two split at spaces.

    Its signature `name` takes what no operator makes and is no constant, and gives what the last operator makes.
    """
    model, graph, signature = schema.ModelT(), schema.SubGraphT(), schema.SignatureDefT()
    index = {value.name: place for place, value in enumerate(values)}
    model.version, model.description, model.buffers = 3, b"by hand", [schema.BufferT()]
    graph.tensors = [_tensor(model, value) for value in values]
    kinds = sorted({kind for kind, _, _ in operators})
    model.operatorCodes = [_code(kind) for kind in kinds]
    graph.operators = []
    for kind, taken, made in operators:
        operator = schema.OperatorT()
        operator.opcodeIndex = kinds.index(kind)
        operator.inputs, operator.outputs = [index[n] for n in taken.split()], [index[n] for n in made.split()]
        graph.operators.append(operator)
    produced = {n for _, _, made in operators for n in made.split()}
    inputs = [value.name for value in values if value.data is None and value.name not in produced]
    outputs = operators[-1][2].split()
    graph.name, graph.inputs, graph.outputs = b"main", [index[n] for n in inputs], [index[n] for n in outputs]
    signature.signatureKey, signature.subgraphIndex = name.encode(), 0
    signature.inputs = [_entry(n, index[n]) for n in inputs]
    signature.outputs = [_entry(n, index[n]) for n in outputs]
    model.subgraphs, model.signatureDefs = [graph], [signature]
    write_model(model, path)
    return path


def _tensor(model: Any, value: Value) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.shape = value.name.encode(), list(value.shape)
    tensor.type, tensor.buffer = getattr(schema.TensorType, value.dtype), 0
    if value.scales:
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = list(value.scales), list(value.zeros)
        tensor.quantization.quantizedDimension = value.axis
    if value.data is not None:
        tensor.buffer = len(model.buffers)
        model.buffers.append(schema.BufferT(np.ascontiguousarray(value.data).view(np.uint8).reshape(-1)))
    return tensor


def _code(kind: str) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, kind)
    code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
    code.customCode = b"mine" if kind == "CUSTOM" else None
    return code


def _entry(name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), index
    return entry
