"""A TFLite file that is being changed: adding tensors, constants and operators to its one graph."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from pocketdiffusion.export.backends.tflite.file import operator_name


class DeferredConstant:
    """The bytes of a constant of `shape` and `dtype`, which `make` computes only when the file is written."""

    def __init__(self, shape: Sequence[int], dtype: str, make: Callable[[], NDArray[Any]]) -> None:
        self._shape, self._dtype, self._make = tuple(shape), np.dtype(dtype), make

    def __len__(self) -> int:
        return prod(self._shape) * self._dtype.itemsize

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.uint8]:
        values = np.ascontiguousarray(self._make(), self._dtype)
        assert values.size == prod(self._shape)
        return values.reshape(-1).view(np.uint8)


@dataclass(frozen=True)
class TfliteEditor:
    """The file `model`, as `file.read_model` returns it, and its graph."""

    model: Any
    graph: Any

    def tensor(self, name: str, shape: Sequence[int], kind: str, quantization: Any = None) -> int:
        """Add a tensor without a value, and return its index. `kind` is the schema's name of a type, such as "INT8"."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name.encode(), list(shape), getattr(schema.TensorType, kind)
        tensor.buffer, tensor.quantization = 0, quantization
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def constant(
        self,
        name: str,
        shape: Sequence[int],
        kind: str,
        data: NDArray[Any] | DeferredConstant,
        quantization: Any = None,
    ) -> int:
        """Add a tensor with a value, whose dtype must be `kind`, and return its index."""
        index = self.tensor(name, shape, kind, quantization)
        self.fill(index, data)
        return index

    def fill(self, index: int, data: NDArray[Any] | DeferredConstant) -> None:
        """Set the value of the tensor `index`."""
        raw = data if isinstance(data, DeferredConstant) else np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        self.graph.tensors[index].buffer = len(self.model.buffers)
        self.model.buffers.append(schema.BufferT(raw))

    def operator(self, kind: str, inputs: Sequence[int], output: int, version: int = 1) -> Any:
        """Return a new operator, which is not yet in the graph."""
        operator = schema.OperatorT()
        operator.opcodeIndex = self.code(kind, version)
        operator.inputs, operator.outputs = list(inputs), [output]
        return operator

    def code(self, kind: str, version: int) -> int:
        """Return the index of the operator code `kind` of that version in the file, which is added if it is missing."""
        builtin = getattr(schema.BuiltinOperator, kind)
        for index, code in enumerate(self.model.operatorCodes):
            if (max(code.builtinCode, code.deprecatedBuiltinCode), code.version) == (builtin, version):
                return index
        code = schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), version
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1

    def raise_version(self, operator: Any, version: int) -> None:
        """Raise the version of the operator to at least `version`."""
        present = self.model.operatorCodes[operator.opcodeIndex].version
        operator.opcodeIndex = self.code(operator_name(self.model, operator), max(present, version))

    def consumers(self, index: int) -> Iterator[tuple[Any, int]]:
        """Yield each operator that reads the tensor `index`, and the number of the operand."""
        for operator in self.graph.operators:
            for place, taken in enumerate(operator.inputs):
                if taken == index:
                    yield operator, place
