"""TFLite files by LiteRT's schema in plain Python: read into tables of lists, changed there, and written again."""

from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from pocketdiffusion.export.backends.tflite.refusals import LARGEST
from pocketdiffusion.runtime.errors import ProofError

ALIGNMENT = 16  # TFLite's schema asks for it, and flatbuffers' Python writer does not know
# The operand, of each operator that has one, that is a matrix of weights.
WEIGHT_OPERAND = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "EMBEDDING_LOOKUP": 1, "GATHER": 0}
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
    return np.asarray(model.buffers[tensor.buffer].data) if is_constant(model, tensor) else None


def is_constant(model: Any, tensor: Any) -> bool:
    """Whether it has a value in the file."""
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def operands(operator: Any) -> list[int]:
    """The tensors that it takes; an optional one that is left out is -1 in the file and not here."""
    return [int(index) for index in operator.inputs if index >= 0]


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


class _Quantization:
    """A QuantizationParametersT of scales and zeros. A weight's zeros are eight bytes of 0 for each channel: vectors of
    one length are written once, into `written`."""

    def __init__(self, found: Any, written: dict[bytes, Any]) -> None:
        self.found, self.written = found, written

    def Pack(self, builder: Any) -> Any:  # the schema's name
        zeros = np.asarray(self.found.zeroPoint, np.int64)
        key = zeros.tobytes()
        if key not in self.written:
            self.written[key] = builder.CreateNumpyVector(zeros)
        scale = builder.CreateNumpyVector(np.asarray(self.found.scale, np.float32))
        schema.QuantizationParametersStart(builder)
        schema.QuantizationParametersAddScale(builder, scale)
        schema.QuantizationParametersAddZeroPoint(builder, self.written[key])
        schema.QuantizationParametersAddQuantizedDimension(builder, self.found.quantizedDimension)
        return schema.QuantizationParametersEnd(builder)


def check_size(name: str, size: int) -> None:
    """Raises ProofError, naming the component, for more bytes of weights than the format allows."""
    if size > LARGEST:
        raise ProofError(f"{name}: {size / 1e9:.1f} GB of weights, where a TFLite file holds 2.1: use recipe fp16")


def write_model(model: Any, path: Path) -> None:
    """Writes `path`. Raises ProofError where it would be larger than the format allows."""
    size = sum(len(buffer.data) for buffer in model.buffers if buffer.data is not None)
    check_size(path.stem, size)
    model.buffers = [_AlignedBuffer(buffer.data) for buffer in model.buffers]
    written: dict[bytes, Any] = {}
    for tensor in (tensor for graph in model.subgraphs for tensor in graph.tensors):
        found = tensor.quantization
        if found is not None and found.scale is not None and found.details is None:
            tensor.quantization = _Quantization(found, written)
    builder = flatbuffers.Builder(min(size + 2**20, 2**31))  # at once, rather than doubled and copied up to there
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    path.write_bytes(memoryview(builder.Bytes)[builder.head :])
