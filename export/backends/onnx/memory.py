"""The memory that onnxruntime needs on a CPU for a loaded ONNX graph, counted from the file and not measured."""

from collections.abc import Collection, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import onnx

from pocketdiffusion.export.backends.live_tensors import largest_live
from pocketdiffusion.export.backends.onnx.channel_blocks import copied_back, executed
from pocketdiffusion.export.backends.onnx.execution_order import execution_order
from pocketdiffusion.runtime.bundle.graph_needs import Memory

HALVES = 2  # samples in a call with an open batch: both halves of guidance
_BITS = {"INT4": 4, "UINT4": 4, "BOOL": 8}
_COUNTED = (
    "what is computed of weights alone is computed when the file is loaded, as a cast of float16 to float32 is; "
    "the table of a Gather, and integers behind a DequantizeLinear, which runs at each call, are read where the file "
    "is mapped: pages that the system can drop, in mapped_bytes"
)
_LOADING = (
    "while it is loaded: also the float32 of each convolution's weight of another type: onnxruntime on x86 copies them "
    "to blocks of channels before it frees any, and the copies of the weight that it rearranges"
)
# Copies at once of a convolution's weight that is rearranged: as read, in blocks, and as a tensor of the graph. Of any
# other there is 1, packed, where the weight was computed, and none where it is read from the mapped file. onnxruntime
# 1.32 on x86, measured on layers of one size: benchmarks/loading_memory.py.
_CONVOLUTION_COPIES = 3
_PACKED = ("MatMul", "Gemm")


def count_memory(path: Path) -> Memory:
    """Return the memory in bytes that the graph in the file `path` needs for weights, whose values are not read, and
    activations. Activations are None, with the tensor's name in `counted`, if a shape is not known."""
    model = onnx.load(str(path), load_external_data=False)
    is_open = any(dim.dim_param for value in model.graph.input for dim in value.type.tensor_type.shape.dim)
    sizes = {value.name: _bytes(value.type.tensor_type) for value in _shaped(model)}
    held = {tensor.name: _count(tensor.dims, tensor.data_type) for tensor in model.graph.initializer}
    stored = {*held}
    nodes, weights, filters = [], set(), set()
    largest = 0  # bytes of the copies of one weight
    for node in model.graph.node:
        reads, writes = tuple(filter(None, node.input)), tuple(filter(None, node.output))
        if node.op_type == "Constant" or (held.keys() >= set(reads) and node.op_type != "DequantizeLinear"):
            held |= {name: sizes.get(name) or 0 for name in writes}
            continue
        weights |= {name for name in reads if name in held}
        filters |= {name for name in reads[1:2] if name in held and node.op_type == "Conv"}
        copies = {
            name: _CONVOLUTION_COPIES if name in filters else int(name not in stored and node.op_type in _PACKED)
            for name in reads
        }
        largest = max([largest, *(copies[name] * held[name] for name in reads if name in held)])
        nodes.append(node)
    computed = {name for node in nodes for name in node.output if name}
    ends = [[value.name for value in values] for values in (model.graph.input, model.graph.output)]
    known = {name: size for name, size in sizes.items() if size is not None and name not in held}
    unknown = sorted((computed | {*ends[0]}) - known.keys())
    counted = f"weights: {_COUNTED}; {_LOADING}"
    if is_open:
        counted += f"; activations: of {HALVES} samples in a call"
    if unknown:
        counted += f"; activations: not counted, since the shape of {unknown[0]} is not known"
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in _shaped(model)
        if len(value.type.tensor_type.shape.dim) == 4
    }
    channels = {name: shape[1] for name, shape in shapes.items()}
    ordered = execution_order(nodes, lambda node: node.op_type == "Conv" and node.input[1] in filters)
    expanded = {node.output[0]: _expanded_bytes(node, shapes) for node in nodes if node.op_type == "Conv"}
    run = copied_back(ends[1], executed(ordered, channels, known, filters, expanded))
    mapped = read_where_mapped(nodes, stored)
    size = sum(held[name] for name in weights - mapped)
    return Memory(
        weights_bytes=size,
        mapped_bytes=sum(held[name] for name in mapped),
        loading_bytes=size + sum(held[name] for name in filters - stored) + largest,
        keeps_activations=False,
        activations_bytes=None if unknown else largest_live(run.operations, {**known, **run.copies}, *ends),
        counted=counted,
    )


def read_where_mapped(nodes: Sequence[onnx.NodeProto], stored: Collection[str]) -> set[str]:
    """Return the weights among the `stored` ones that onnxruntime reads where the file is mapped: those that are only
    looked up by a Gather, or widened by a DequantizeLinear. One whose reader computes in integers is not among them,
    since it is packed."""
    widened = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    integers = {name for node in nodes if widened & {*node.input[:1]} for name in node.input[1:]}
    mapped: set[str] = set()
    others: set[str] = set()
    for node in nodes:
        looked_up = node.op_type == "Gather" or (node.op_type == "DequantizeLinear" and node.output[0] not in integers)
        (mapped if looked_up else others).update(node.input[:1])
        others |= {*node.input[1:]}
    return (mapped - others) & {*stored}


def _expanded_bytes(node: onnx.NodeProto, shapes: Mapping[str, Sequence[int]]) -> int:
    """Return the bytes of the matrix to which onnxruntime expands a sample of a convolution's input, a row for each
    weight of a filter, where it computes without blocks of channels and has more filters than positions of the output
    (MlasConvPrepare in onnxruntime/core/mlas/lib/convolve.cpp). With fewer filters it expands a little at a time."""
    kernel, result = shapes.get(node.input[1]), shapes.get(node.output[0])
    if kernel is None or result is None or kernel[0] <= prod(result[2:]) or prod(kernel[2:]) == 1:
        return 0
    return 4 * prod(kernel[1:]) * prod(result[2:])


def _shaped(model: onnx.ModelProto) -> list[Any]:
    """Return all values with their shapes. An open batch is set to `HALVES`, and the shapes are inferred again."""
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    open_ends = [dim for value in values for dim in value.type.tensor_type.shape.dim if not dim.HasField("dim_value")]
    if not open_ends:
        return values
    for dim in open_ends:
        if dim.dim_param:
            dim.dim_value = HALVES
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    return [*inferred.input, *inferred.output, *inferred.value_info]


def _bytes(kind: Any) -> int | None:
    """Return the bytes of a value, None if a size is not known."""
    if not kind.HasField("shape") or not all(dim.HasField("dim_value") for dim in kind.shape.dim):
        return None
    return _count([dim.dim_value for dim in kind.shape.dim], kind.elem_type)


def _count(shape: Any, kind: int) -> int:
    name = onnx.TensorProto.DataType.Name(kind)
    bits = _BITS.get(name) or 8 * onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize
    return int((prod(shape) * bits + 7) // 8)
