"""Reading and writing TFLite files by LiteRT's schema in plain Python, as tables that can be changed in between."""

from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from pocketdiffusion.export.backends.tflite.refusals import LARGEST
from pocketdiffusion.runtime.errors import ProofError

ALIGNMENT = 16  # bytes: required by TFLite's schema, and unknown to flatbuffers' Python writer
# The number of the operand that is a matrix of weights, for each operator that has one.
WEIGHT_OPERAND = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "EMBEDDING_LOOKUP": 1, "GATHER": 0}
_IDENTIFIER = b"TFL3"
_PLACEHOLDER = 1  # offsets up to this one mean that there is none
OPERATORS: dict[int, str] = {
    value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)
}
TYPES: dict[int, str] = {value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)}


def read_model(path: Path) -> Any:
    """Return the file as the schema's ModelT. Large weights are not read until they are used.

    A buffer can be stored after the flatbuffer, at an `offset` in the file, as the converter does if it expects more
    than 2 GB; it has its bytes in the result too. Raise ProofError if the file ends before the end of such a buffer.
    """
    raw = np.memmap(path, np.uint8, mode="r")
    model = schema.ModelT.InitFromPackedBuf(raw.data, 0)
    for number, buffer in enumerate(model.buffers):
        if buffer.offset > _PLACEHOLDER:
            end = buffer.offset + buffer.size
            if end > raw.size:
                raise ProofError(
                    f"{path.name} is truncated: it has {raw.size} bytes, and its buffer {number} ends at {end}"
                )
            buffer.data, buffer.offset, buffer.size = raw[buffer.offset : end], 0, 0
    return model


def operator_name(model: Any, operator: Any) -> str:
    """Return the schema's name of an operator, such as "CONV_2D". Old files fill only one of its two fields."""
    code = model.operatorCodes[operator.opcodeIndex]
    return OPERATORS[max(code.builtinCode, code.deprecatedBuiltinCode)]


def data_of(model: Any, tensor: Any) -> NDArray[np.uint8] | None:
    """Return the bytes of a constant, None for a tensor that is computed."""
    return np.asarray(model.buffers[tensor.buffer].data) if is_constant(model, tensor) else None


def is_constant(model: Any, tensor: Any) -> bool:
    """Return True if the tensor has a value in the file."""
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def operands(operator: Any) -> list[int]:
    """Return the tensors that an operator reads, without optional ones that are left out, which are -1 in the file."""
    return [int(index) for index in operator.inputs if index >= 0]


class _AlignedBuffer:
    """A BufferT whose bytes are aligned as the schema requires."""

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
    """A QuantizationParametersT of scales and zero points. A weight's zero points are eight bytes of 0 per channel:
    equal vectors are written once, and kept in `written`."""

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
    """Raise ProofError, naming the component, if `size` bytes of weights exceed the limit of the format."""
    if size > LARGEST:
        raise ProofError(
            f"{name} has {size / 1e9:.1f} GB of weights, and a TFLite file is limited to 2.1 GB: use --recipe fp16"
        )


def write_model(model: Any, path: Path) -> None:
    """Write `model` to `path`. Raise ProofError if it would exceed the limit of the format."""
    size = sum(len(buffer.data) for buffer in model.buffers if buffer.data is not None)
    check_size(path.stem, size)
    model.buffers = [_AlignedBuffer(buffer.data) for buffer in model.buffers]
    written: dict[bytes, Any] = {}
    for tensor in (tensor for graph in model.subgraphs for tensor in graph.tensors):
        found = tensor.quantization
        if found is not None and found.scale is not None and found.details is None:
            tensor.quantization = _Quantization(found, written)
    builder = flatbuffers.Builder(
        min(size + 2**20, 2**31)
    )  # allocated once; by default it is doubled and copied until it fits
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    path.write_bytes(memoryview(builder.Bytes)[builder.head :])
