"""The last touch on a converted TFLite file: weights as float16, nothing noted that is not needed, aligned buffers.

LiteRT's schema in plain Python: a file is read into tables of lists, changed there, and written again.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from pocketdiffusion.runtime.errors import ProofError

ALIGNMENT = 16  # TFLite's schema asks for it, and flatbuffers' Python writer does not know
LARGEST = 2**31 - 1  # offsets in a flatbuffer are of 32 bits, signed in most readers
# The operand, of each operator that has one, that is a matrix of weights.
WEIGHT_OPERAND = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "EMBEDDING_LOOKUP": 1, "GATHER": 0}
_KEPT_METADATA = (b"min_runtime_version",)
_IDENTIFIER = b"TFL3"
_PLACEHOLDER = 1  # an offset up to this means none
OPERATORS: dict[int, str] = {
    value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)
}
TYPES: dict[int, str] = {value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)}


def read_model(path: Path) -> Any:
    """The file as the schema's ModelT. Large weights are not read until they are used.

    A buffer may lie behind the flatbuffer, at an `offset` in the file, as the converter does it where it expects more
    than 2 GB: it then has its bytes here all the same. Raises ProofError where the file ends before it.
    """
    raw = np.memmap(path, np.uint8, mode="r")
    model = schema.ModelT.InitFromPackedBuf(raw.data, 0)
    for number, buffer in enumerate(model.buffers):
        if buffer.offset > _PLACEHOLDER:
            end = buffer.offset + buffer.size
            if end > raw.size:
                raise ProofError(f"{path.name} has {raw.size} bytes, and its buffer {number} would end at {end}")
            buffer.data, buffer.offset, buffer.size = raw[buffer.offset : end], 0, 0
    return model


def operator_name(model: Any, operator: Any) -> str:
    """As the schema spells it, such as "CONV_2D". Of the two fields for it, old files fill only one."""
    code = model.operatorCodes[operator.opcodeIndex]
    return OPERATORS[max(code.builtinCode, code.deprecatedBuiltinCode)]


def data_of(model: Any, tensor: Any) -> NDArray[np.uint8] | None:
    """The bytes of a constant, or None for what is computed."""
    data = model.buffers[tensor.buffer].data
    return None if data is None or len(data) == 0 else np.asarray(data)


def operands(operator: Any) -> list[int]:
    """The tensors that it takes; an optional one that is left out is -1 in the file and not here."""
    return [int(index) for index in operator.inputs if index >= 0]


def finish(raw: Path, path: Path, *, halves: bool) -> None:
    """Reads the converter's file `raw` and writes `path`.

    With `halves`, each matrix of weights is stored as float16, behind a DEQUANTIZE. Raises ProofError where one does
    not fit, or where the file would be larger than the format allows.
    """
    model = read_model(raw)
    if halves:
        _dequantize_casts(model)
        _store_halves(model)
    _name_tensors(model)
    _strip(model)
    write_model(model, path)


def _dequantize_casts(model: Any) -> None:
    """CAST of a float16 constant becomes DEQUANTIZE, which delegates fold and the interpreter runs once."""
    for graph in model.subgraphs:
        for operator in graph.operators:
            if operator_name(model, operator) == "CAST":
                source = graph.tensors[operator.inputs[0]]
                if source.type == schema.TensorType.FLOAT16 and data_of(model, source) is not None:
                    _make_dequantize(model, operator)


def _store_halves(model: Any) -> None:
    """The converter widens small weights, and folds into some the factor that follows. They become float16 again."""
    for graph in model.subgraphs:
        added = []
        for index in sorted(set(_weights(model, graph))):
            tensor = graph.tensors[index]
            data = data_of(model, tensor)
            if data is None or tensor.type != schema.TensorType.FLOAT32:
                continue
            single = data.view(np.float32)
            if np.abs(single).max() > np.finfo(np.float16).max:
                raise ProofError(f"{tensor.name.decode()}: a weight is over 65504; export this model as fp32")
            half = single.astype(np.float16)
            stored = schema.TensorT()
            stored.shape, stored.type, stored.name = tensor.shape, schema.TensorType.FLOAT16, tensor.name
            stored.buffer, tensor.buffer = len(model.buffers), 0
            model.buffers.append(schema.BufferT(half.view(np.uint8)))
            graph.tensors.append(stored)
            operator = schema.OperatorT()
            operator.inputs, operator.outputs = [len(graph.tensors) - 1], [index]
            _make_dequantize(model, operator)
            added.append(operator)
        graph.operators[:0] = added


def _weights(model: Any, graph: Any) -> Iterator[int]:
    for operator in graph.operators:
        place = WEIGHT_OPERAND.get(operator_name(model, operator))
        if place is not None and graph.tensors[operator.inputs[place]].shape is not None:
            yield int(operator.inputs[place])


def _make_dequantize(model: Any, operator: Any) -> None:
    codes = [code.builtinCode for code in model.operatorCodes]
    if schema.BuiltinOperator.DEQUANTIZE not in codes:
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
        code.version = 3  # the first that takes float16
        model.operatorCodes.append(code)
        codes.append(code.builtinCode)
    operator.opcodeIndex = codes.index(schema.BuiltinOperator.DEQUANTIZE)


def _name_tensors(model: Any) -> None:
    """Inputs and outputs by the signature, what is computed by its operator, the rest by number: no Python class."""
    for graph in model.subgraphs:
        for number, tensor in enumerate(graph.tensors):
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
    """Leaves what an interpreter reads: buffers that are used, each once, and operators that are used."""
    model.description = b"pocketdiffusion"
    model.metadata = [entry for entry in model.metadata or [] if entry.name in _KEPT_METADATA]
    model.metadataBuffer = None
    used = [tensor for graph in model.subgraphs for tensor in graph.tensors if data_of(model, tensor) is not None]
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


class _AlignedBuffer:
    """A BufferT whose bytes lie where the schema wants them."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def Pack(self, builder: Any) -> Any:  # the schema's name
        vector = None
        if self.data is not None:
            builder.StartVector(1, len(self.data), ALIGNMENT)
            builder.head -= len(self.data)
            builder.Bytes[builder.head : builder.head + len(self.data)] = np.ascontiguousarray(self.data).data
            vector = builder.EndVector()
        schema.BufferStart(builder)
        if vector is not None:
            schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)


def check_size(name: str, size: int) -> None:
    """Raises ProofError, naming the component, for more bytes of weights than the format allows."""
    if size > LARGEST:
        raise ProofError(f"{name}: {size / 1e9:.1f} GB of weights, where a TFLite file holds 2.1: use recipe fp16")


def write_model(model: Any, path: Path) -> None:
    """Writes `path`. Raises ProofError where it would be larger than the format allows."""
    size = sum(len(buffer.data) for buffer in model.buffers if buffer.data is not None)
    check_size(path.stem, size)
    model.buffers = [_AlignedBuffer(buffer.data) for buffer in model.buffers]
    builder = flatbuffers.Builder(min(size + 2**20, 2**31))  # at once, rather than doubled and copied up to there
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    path.write_bytes(memoryview(builder.Bytes)[builder.head :])
