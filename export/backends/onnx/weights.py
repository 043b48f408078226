"""Streaming weights from the checkpoint to the artifact, one tensor at a time.

While the graph is built, its weights are graph inputs: named, typed, and out of reach of every optimizer. Nodes that
only transpose or reshape a weight are then folded into its reading, and the tensors are streamed to `model.onnx_data`.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from pocketdiffusion.export.backends.check_storable import check_storable
from pocketdiffusion.export.checkpoints.tensor import LazyTensor
from pocketdiffusion.quantize.quantized_tensor import Plain, Stored, store
from pocketdiffusion.quantize.scheme import Scheme
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.memory import mapping_large_blocks, return_freed_memory

Turn = Callable[[NDArray[np.float32]], NDArray[np.float32]]
Extract = Callable[[Stored], NDArray[Any]]  # the content of a graph value, computed from a stored weight
DATA = "model.onnx_data"
_BLOCK = 2**20  # values that are rounded and written at a time
_PAGE = 4096  # bytes: ONNX requires offsets that can be mapped into memory


@dataclass(frozen=True)
class Weight:
    """A tensor of the checkpoint, and the transposes and reshapes that the graph applies to it."""

    name: str
    ref: LazyTensor
    transposes: tuple[Turn, ...] = ()

    def read(self) -> NDArray[np.float32]:
        array = self.ref.read()
        for turn in self.transposes:
            array = turn(array)
        return np.ascontiguousarray(array)


def detach_weights(model: ir.Model, refs: Mapping[str, LazyTensor]) -> None:
    """Turn all initializers into graph inputs. Raise ProofError for one that the checkpoint does not have."""
    for name, value in list(model.graph.initializers.items()):
        if name not in refs:
            raise ProofError(f"{name}: the graph needs this tensor, and the checkpoint does not have it")
        del model.graph.initializers[name]
        value.const_value = None
        model.graph.inputs.append(value)


def attach_weights(model: ir.Model, refs: Mapping[str, LazyTensor]) -> dict[ir.Value, Weight]:
    """Return the graph inputs that are weights, made by `detach_weights`, with the tensors of the checkpoint."""
    named = {value: value.name for value in model.graph.inputs}
    return {value: Weight(name, refs[name]) for value, name in named.items() if name is not None and name in refs}


def fold_transposes(
    model: ir.Model, weights: Mapping[ir.Value, Weight], kept: Collection[str]
) -> dict[ir.Value, Weight]:
    """Move each Transpose and Reshape of a weight from the graph into its reading, except for weights named in `kept`.
    Return the weights by their new graph inputs."""
    folded = dict(weights)
    for node in list(model.graph):
        source = node.inputs[0] if node.inputs else None
        turn = _turn(node)
        if source is None or source not in folded or folded[source].name in kept or turn is None:
            continue
        old = node.outputs[0]
        new = ir.Value(name=f"{source.name}.{node.op_type.lower()}", type=old.type, shape=old.shape)
        ir.convenience.replace_all_uses_with(old, new)
        model.graph.remove(node, safe=True)
        model.graph.inputs.append(new)
        folded[new] = replace(folded[source], transposes=(*folded[source].transposes, turn))
    return folded


def drop_unused(model: ir.Model) -> None:
    """Remove the initializers that no node reads: the target shapes of folded Reshapes. onnxruntime warns of each one
    when it loads a file."""
    for name, value in list(model.graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del model.graph.initializers[name]


def _turn(node: ir.Node) -> Turn | None:
    if node.op_type == "Transpose":
        axes = tuple(node.attributes["perm"].as_ints())
        return lambda array: array.transpose(axes)
    shape = ir.convenience.get_const_tensor(node.inputs[1]) if node.op_type == "Reshape" and node.inputs[1] else None
    sizes = () if shape is None else tuple(shape.numpy().tolist())
    return None if shape is None or 0 in sizes else lambda array: array.reshape(sizes)  # 0 would keep a dimension


@dataclass(frozen=True)
class Part:
    """The values of the graph that represent one tensor of the checkpoint, and how their contents are extracted from
    it."""

    weight: Weight
    scheme: Scheme
    values: Mapping[ir.Value, Extract]


def plain_part(value: ir.Value, weight: Weight, scheme: Scheme) -> Part:
    """Return the part of a tensor that is stored as floats, in the graph's value itself."""

    def values(stored: Stored) -> NDArray[Any]:
        assert isinstance(stored, Plain)
        return stored.values

    return Part(weight, scheme, {value: values})


def stream_weights(model: ir.Model, parts: Iterable[Part], folder: Path) -> int:
    """Write the weights that the graph uses to `folder`/model.onnx_data, make them initializers, and return the number
    of parameters written.

    Vectors (biases, gains of norms, scales of channels) stay in the model file as float32: they are small, and biases
    matter most for precision. Weights begin at a page; scales of blocks follow their quantized values. A float16
    weight gets a Cast to float32 in the graph. Raise ProofError for a weight that is not finite, or exceeds float16.
    """
    return_freed_memory()  # what translating the graph left
    with open(folder / DATA, "wb") as file, mapping_large_blocks():
        return sum(_stream_part(model, part, file, folder) for part in parts)


def _stream_part(model: ir.Model, part: Part, file: BinaryIO, folder: Path) -> int:
    """Write one tensor as `stream_weights` does, and return the number of its parameters that were written. Its arrays
    are released at the end, before the next tensor is read."""
    used = [value for value in part.values if value.uses()]
    for value in part.values:
        if value.is_graph_input():
            model.graph.inputs.remove(value)
    if not used:
        return 0
    array = part.weight.read()
    check_storable(part.weight.name, array, part.scheme)
    vector = len(part.weight.ref.shape) < 2
    half = not vector and (part.scheme.kind, part.scheme.bits) == ("float", 16)
    stored = Plain(array) if vector or half else store(array, part.scheme)  # `_write` rounds to float16
    file.write(b"" if vector else bytes(-file.tell() % _PAGE))
    written: dict[Extract, ir.ExternalTensor] = {}
    for value in used:
        extract = part.values[value]
        if extract not in written:
            data = np.asarray(extract(stored), order="C")
            if half and value.dtype == ir.DataType.FLOAT:
                value = _store_as_half(model, value)
            if vector or data.ndim < 2:
                value.const_value = ir.tensor(data, name=value.name)
            else:
                value.const_value = written[extract] = _write(file, value, data, folder)
        else:
            value.const_value = _refer(value, written[extract], folder)
        model.graph.initializers.add(value)
    return array.size


def _refer(value: ir.Value, written: ir.ExternalTensor, folder: Path) -> ir.ExternalTensor:
    """Return a tensor for `value` with the bytes of a tensor that is written already."""
    assert value.dtype is not None and value.shape is not None
    place = DATA, written.offset, written.length
    return ir.ExternalTensor(*place, value.dtype, shape=value.shape, name=str(value.name), base_dir=folder)


def _write(file: BinaryIO, value: ir.Value, data: NDArray[Any], folder: Path) -> ir.ExternalTensor:
    """Append `data` to the file, rounded to float16 if the value is, by blocks, or with two int4 values in a byte, the
    first in the lower half. Return its tensor."""
    assert value.dtype is not None
    shape = ir.Shape(data.shape)
    if value.dtype == ir.DataType.INT4:
        flat = data.view(np.uint8).ravel() & 15
        flat = np.append(flat, np.zeros(len(flat) % 2, np.uint8))
        data = flat[::2] | flat[1::2] << 4
    start, flat = file.tell(), data.reshape(-1)
    dtype = np.float16 if value.dtype == ir.DataType.FLOAT16 else data.dtype
    for begin in range(0, flat.size, _BLOCK):
        file.write(flat[begin : begin + _BLOCK].astype(dtype, copy=False).data)
    return ir.ExternalTensor(
        DATA, start, file.tell() - start, value.dtype, shape=shape, name=str(value.name), base_dir=folder
    )


def _store_as_half(model: ir.Model, value: ir.Value) -> ir.Value:
    """Replace `value` by a float16 value, which inherits its name, and a Cast. Return the float16 value."""
    half = ir.Value(name=value.name, type=ir.TensorType(ir.DataType.FLOAT16), shape=value.shape)
    cast = ir.node("Cast", [half], {"to": ir.DataType.FLOAT}, name=f"{value.name}/Cast")
    single = cast.outputs[0]
    single.name, single.shape, single.type = f"{value.name}.float32", value.shape, value.type
    ir.convenience.replace_all_uses_with(value, single)
    model.graph.insert_before(model.graph[0], cast)
    return half
