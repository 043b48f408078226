"""A TFLite file while it is changed: tensors, constants and operators are added to its one graph."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from pocketdiffusion.export.backends.tflite.file import operator_name


class Late:
    """The bytes of a constant of `shape` and `dtype`, which `make` gives when the file is written, and not before."""

    def __init__(self, shape: Sequence[int], dtype: str, make: Callable[[], NDArray[Any]]) -> None:
        self._shape, self._dtype, self._make = tuple(shape), np.dtype(dtype), make

    def __len__(self) -> int:
        return prod(self._shape) * self._dtype.itemsize

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.uint8]:
        values = np.ascontiguousarray(self._make(), self._dtype)
        assert values.size == prod(self._shape)
        return values.reshape(-1).view(np.uint8)


@dataclass(frozen=True)
class Draft:
    """`model` and its graph as `tflite_file.read_model` reads them."""

    model: Any
    graph: Any

    def tensor(self, name: str, shape: Sequence[int], kind: str, quantization: Any = None) -> int:
        """Adds one without a value, and returns its index. `kind` as the schema spells it, such as "INT8"."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name.encode(), list(shape), getattr(schema.TensorType, kind)
        tensor.buffer, tensor.quantization = 0, quantization
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def constant(
        self, name: str, shape: Sequence[int], kind: str, data: NDArray[Any] | Late, quantization: Any = None
    ) -> int:
        """Adds one with a value, in the dtype that `kind` says, and returns its index."""
        index = self.tensor(name, shape, kind, quantization)
        self.fill(index, data)
        return index

    def fill(self, index: int, data: NDArray[Any] | Late) -> None:
        """Gives a tensor a value."""
        raw = data if isinstance(data, Late) else np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        self.graph.tensors[index].buffer = len(self.model.buffers)
        self.model.buffers.append(schema.BufferT(raw))

    def operator(self, kind: str, inputs: Sequence[int], output: int, version: int = 1) -> Any:
        """A new one, which is not yet among the graph's."""
        operator = schema.OperatorT()
        operator.opcodeIndex = self.code(kind, version)
        operator.inputs, operator.outputs = list(inputs), [output]
        return operator

    def code(self, kind: str, version: int) -> int:
        """The index of an operator of that version among those of the file, which gets it where it lacks it."""
        builtin = getattr(schema.BuiltinOperator, kind)
        for index, code in enumerate(self.model.operatorCodes):
            if (max(code.builtinCode, code.deprecatedBuiltinCode), code.version) == (builtin, version):
                return index
        code = schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), version
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1

    def raise_version(self, operator: Any, version: int) -> None:
        """Makes the operator one of at least that version."""
        present = self.model.operatorCodes[operator.opcodeIndex].version
        operator.opcodeIndex = self.code(operator_name(self.model, operator), max(present, version))

    def takers(self, index: int) -> Iterator[tuple[Any, int]]:
        """The operators that take a tensor, and the place at which they do."""
        for operator in self.graph.operators:
            for place, taken in enumerate(operator.inputs):
                if taken == index:
                    yield operator, place
