"""Read the ML program of an .mlpackage: its operations and the places of its constants, without a Mac or torch.

Source: https://apple.github.io/coremltools/mlmodel/Format/MIL.html, whose protobuf classes come with coremltools.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from pocketdiffusion.runtime.engines.mlprogram.constants import Blob, TensorType, decode
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.runner import Array

Constant = Array | str | Blob


@dataclass(frozen=True)
class Result:
    """One output of an operation, as the program declares it."""

    name: str
    type: TensorType


@dataclass(frozen=True)
class Name:
    """An argument that is an input of the program or the result of an operation."""

    name: str


@dataclass(frozen=True)
class Operation:
    """`kind` is MIL's name of the operator. Each argument is a list, most often of one value.

    `constants` has, by argument, the names of the arguments that are named constants.
    """

    kind: str
    arguments: Mapping[str, tuple[Name | Constant, ...]]
    results: tuple[Result, ...]
    constants: Mapping[str, str] = field(default_factory=dict)

    @property
    def uses(self) -> Iterator[str]:
        """Yield the names that the operation reads."""
        for values in self.arguments.values():
            yield from (value.name for value in values if isinstance(value, Name))


@dataclass(frozen=True)
class Program:
    """The function `main`: operations in the order of running. `const` operations are replaced by their values."""

    opset: str
    inputs: Mapping[str, TensorType]
    outputs: tuple[str, ...]
    operations: tuple[Operation, ...]

    @property
    def output_types(self) -> dict[str, TensorType]:
        """Return the type of each output by name, without outputs that no operation computes."""
        computed = {result.name: result.type for operation in self.operations for result in operation.results}
        return {name: computed[name] for name in self.outputs if name in computed}

    @property
    def histogram(self) -> Counter[str]:
        """Return the number of operations of each kind."""
        return Counter(operation.kind for operation in self.operations)


def read_program(package: Path) -> Program:
    """Return the ML program of a package. Raise UserError if coremltools is not installed, ProofError if the package
    has no ML program or the program has control flow, open shapes or dictionaries."""
    home = package / "Data" / "com.apple.CoreML"
    model = _protobuf().Model()
    try:
        model.ParseFromString((home / "model.mlmodel").read_bytes())
        function = model.mlProgram.functions["main"]
        block = function.block_specializations[function.opset]
    except Exception as error:  # protobuf's DecodeError is in another module in each version
        raise ProofError(f"{package}: this is not a package of an ML program: {error}") from None
    if not block.outputs:
        raise ProofError(f"{package}: this package has no ML program with a function main")
    constants: dict[str, Constant] = {}
    operations = []
    for proto in block.operations:
        if proto.blocks:
            raise ProofError(f"{package}: {proto.type} contains blocks, and control flow is not supported")
        if proto.type == "const":
            constants[proto.outputs[0].name] = _constant(proto.attributes["val"], home)
        else:
            operations.append(_operation(proto, constants, home))
    inputs = {argument.name: _type(argument.type) for argument in function.inputs}
    return Program(function.opset, inputs, tuple(block.outputs), tuple(operations))


def _protobuf() -> ModuleType:
    """Return coremltools' Model_pb2 without importing coremltools itself, which needs seconds and prints warnings."""
    alias = "pocketdiffusion_coremltools_proto"
    if alias not in sys.modules:
        try:
            found = find_spec("coremltools")
        except ModuleNotFoundError:
            found = None
        if found is None or not found.submodule_search_locations:
            raise UserError(
                "Core ML packages are read with coremltools, which is not installed: pip install coremltools"
            )
        package = ModuleType(alias)
        package.__path__ = [str(Path(found.submodule_search_locations[0]) / "proto")]
        sys.modules[alias] = package
    return import_module(f"{alias}.Model_pb2")


def _operation(proto: Any, constants: Mapping[str, Constant], home: Path) -> Operation:
    """Return an operation from its protobuf. Compressed weights (constexpr_...) of iOS 16 and 17 have their arguments
    as attributes."""
    arguments: dict[str, tuple[Name | Constant, ...]] = {}
    named: dict[str, str] = {}
    for key, argument in proto.inputs.items():
        values: list[Name | Constant] = []
        for binding in argument.arguments:
            if binding.WhichOneof("binding") == "value":
                values.append(_constant(binding.value, home))
            else:
                values.append(constants.get(binding.name, Name(binding.name)))
                if binding.name in constants:
                    named[key] = binding.name
        arguments[key] = tuple(values)
    if proto.type.startswith("constexpr_"):
        for key, value in proto.attributes.items():
            if key != "name":
                arguments[key] = (_constant(value, home),)
    results = tuple(Result(output.name, _type(output.type)) for output in proto.outputs)
    return Operation(proto.type, arguments, results, named)


def _type(proto: Any) -> TensorType:
    if proto.WhichOneof("type") != "tensorType":
        raise ProofError(f"the ML program uses a {proto.WhichOneof('type')}, and this reader knows only tensors")
    tensor = proto.tensorType
    if any(size.WhichOneof("dimension") != "constant" for size in tensor.dimensions):
        raise ProofError("the ML program leaves a shape open, which this reader does not know")
    dtype = type(proto).DESCRIPTOR.file.enum_types_by_name["DataType"].values_by_number[tensor.dataType].name
    return TensorType(dtype, tuple(size.constant.size for size in tensor.dimensions))


def _constant(value: Any, home: Path) -> Constant:
    """Return a constant: text, a tensor that the program contains, or a `Blob` for a tensor in the blob file."""
    kind = _type(value.type)
    if value.WhichOneof("value") == "blobFileValue":
        file = home / value.blobFileValue.fileName.removeprefix("@model_path/")
        return Blob(file, value.blobFileValue.offset, kind)
    tensor = value.immediateValue.tensor
    field = tensor.WhichOneof("value")
    if field == "strings":
        return str(tensor.strings.values[0])
    if field == "bytes":
        return decode(np.frombuffer(tensor.bytes.values, np.uint8), kind, "a constant")
    values = np.array(getattr(tensor, field).values if field else [], kind.stored)
    return values.reshape(kind.shape) if values.size == prod(kind.shape) else np.broadcast_to(values, kind.shape)
