"""An integer weight in an ONNX graph: its quantized values and scales, and the DequantizeLinear that computes floats.

DequantizeLinear runs at each step, just before the operator, so that onnxruntime holds only the quantized values; a
Cast and a Mul would be computed at load time, and held in float32 (benchmarks/RESULTS.md). Each row of quantized values
has one scale: an output channel, or a block of one. int4 is widened by a Cast, which onnxruntime does run at load time:
its DequantizeLinear of int4 is three times as slow as of int8.
"""

import itertools
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from pocketdiffusion.export.backends.onnx.edit import Edit, rank, shape_of
from pocketdiffusion.export.backends.onnx.quantization.sites import Site
from pocketdiffusion.export.backends.onnx.refusals import NARROW
from pocketdiffusion.export.backends.onnx.weights import Extract, Weight
from pocketdiffusion.quantize.quantized_tensor import Linear, Stored
from pocketdiffusion.quantize.scheme import Scheme

Extracts = dict[ir.Value, Extract]  # by the values of the graph that represent one weight


def linear(stored: Stored) -> Linear:
    """Return `stored`, which must be integers."""
    assert isinstance(stored, Linear)
    return stored


def put_quantized(
    edit: Edit,
    anchor: ir.Node,
    weight: Weight,
    bits: int,
    shape: Sequence[int],
    turn: Callable[[NDArray[np.int8]], NDArray[np.int8]],
    extracts: Extracts,
) -> ir.Value:
    """Return the quantized values after `turn`, int8 of `shape`; they have the weight's name."""
    return put_stored(edit, anchor, weight, bits, shape, lambda stored: turn(linear(stored).quantized), extracts)


def put_stored(
    edit: Edit,
    anchor: ir.Node,
    weight: Weight,
    bits: int,
    shape: Sequence[int],
    extract: Extract,
    extracts: Extracts,
) -> ir.Value:
    """Return the quantized values of `extract`, int8 of `shape`, under a name of their own. The data file has the
    values of one `extract` once."""
    stored_as = ir.DataType.INT4 if bits <= NARROW else ir.DataType.INT8
    quantized = edit.value(stored_as, shape, _unused(weight.name, extracts))
    extracts[quantized] = extract
    if bits > NARROW:
        return quantized
    widened = edit.value(ir.DataType.INT8, shape)
    return edit.put(anchor, "Cast", [quantized], widened, attributes={"to": ir.DataType.INT8})


def put_scales(edit: Edit, weight: Weight, extracts: Extracts) -> ir.Value:
    """Return the scales of the output channels, float32 [out], stored inside the model file."""
    scales = edit.value(ir.DataType.FLOAT, weight.ref.shape[:1], f"{weight.name}.scale")
    extracts[scales] = lambda stored: linear(stored).scale.reshape(-1)
    return scales


def put_zero_points(edit: Edit, weight: Weight, shape: Sequence[int], extracts: Extracts) -> ir.Value:
    """Return the zero points, int8 of `shape`, all 0. Each operator has its own: onnxruntime on x86 without VNNI
    converts int8 weights and their zero points to uint8, under new names, and refuses to do so twice."""
    zero_points = edit.value(ir.DataType.INT8, shape, _unused(f"{weight.name}.zero", extracts))
    extracts[zero_points] = lambda stored: np.zeros(shape, np.int8)
    return zero_points


def _unused(name: str, extracts: Extracts) -> str:
    """Return `name`, or with a number behind it if a value of the weight has that name already."""
    taken = {value.name for value in extracts}
    copies = (f"{name}.{number}" for number in itertools.count(1))
    return next(each for each in itertools.chain([name], copies) if each not in taken)


def put_block_scales(edit: Edit, anchor: ir.Node, weight: Weight, blocks: int, extracts: Extracts) -> ir.Value:
    """Return the scales of the blocks, float32 [out, blocks]. The data file has them as float16, which is exact."""
    shape = (weight.ref.shape[0], blocks)
    halves = edit.value(ir.DataType.FLOAT16, shape, f"{weight.name}.scale")
    extracts[halves] = lambda stored: linear(stored).scale.reshape(shape).astype(np.float16)
    singles = edit.value(ir.DataType.FLOAT, shape)
    return edit.put(anchor, "Cast", [halves], singles, attributes={"to": ir.DataType.FLOAT})


def blocks_of(weight: Weight, scheme: Scheme) -> int:
    """Return the number of scales of an output channel, 1 unless the scheme has blocks that divide its inputs."""
    inputs = weight.ref.shape[1]
    return inputs // scheme.group if scheme.group and inputs % scheme.group == 0 else 1


def dequantize(edit: Edit, anchor: ir.Node, weight: Weight, scheme: Scheme, extracts: Extracts) -> ir.Value:
    """Return the weight as float32, in its shape in the checkpoint."""
    shape, blocks = weight.ref.shape, blocks_of(weight, scheme)
    rows = (shape[0] * blocks, prod(shape) // (shape[0] * blocks)) if blocks > 1 else shape
    quantized = put_quantized(edit, anchor, weight, scheme.bits, rows, lambda values: values.reshape(rows), extracts)
    zero_points = put_zero_points(edit, weight, rows[:1], extracts) if scheme.bits == 8 else None
    if blocks == 1:
        return _put_dequantize(edit, anchor, quantized, put_scales(edit, weight, extracts), zero_points)
    scales = edit.reshape(anchor, put_block_scales(edit, anchor, weight, blocks, extracts), [-1], rows[:1])
    return edit.reshape(anchor, _put_dequantize(edit, anchor, quantized, scales, zero_points), shape, shape)


def gather_quantized(edit: Edit, weight: Weight, scheme: Scheme, sites: Sequence[Site], extracts: Extracts) -> None:
    """Look up the quantized values of an embedding and their scales, so that only the rows that are read become
    floats."""
    first, blocks = sites[0].node, blocks_of(weight, scheme)
    shape = weight.ref.shape
    quantized = put_quantized(edit, first, weight, scheme.bits, shape, lambda values: values, extracts)
    scales = put_block_scales(edit, first, weight, blocks, extracts)
    for site in sites:
        found = []
        for table in (quantized, scales):
            assert table.dtype is not None
            rows = edit.value(table.dtype, [*shape_of(site.x), shape_of(table)[1]])
            found.append(edit.put(site.node, "Gather", [table, site.x], rows))
        count = count_of(shape_of(found[1]))
        rows = edit.reshape(site.node, found[0], [-1, shape[1] // blocks], [count, shape[1] // blocks])
        # Rows with fixed indices are a constant, which onnxruntime converts as it does a weight (put_zero_points).
        zeros = put_zero_points(edit, weight, (count,), extracts) if scheme.bits == 8 and count is not None else None
        dequantized = _put_dequantize(edit, site.node, rows, edit.reshape(site.node, found[1], [-1], [count]), zeros)
        edit.replace(site.output, edit.restore_shape(site.node, dequantized, site.output), site.nodes)


def put_rows(edit: Edit, anchor: ir.Node, x: ir.Value, behind: ir.Value | None = None) -> ir.Value:
    """Return `x` as a matrix: all dimensions except the last are joined."""
    if rank(x) == 2:
        return x
    *outer, last = shape_of(x)
    return edit.reshape(anchor, x, [-1, last], [count_of(outer), last], behind=behind)


def put_gemm(edit: Edit, site: Site, rows: ir.Value, weight: ir.Value, bias: ir.Value | None) -> ir.Value:
    """Return rows W^T + bias, for a weight [out, in] in the checkpoint's layout."""
    result = edit.value(ir.DataType.FLOAT, [shape_of(rows)[0], shape_of(weight)[0]])
    inputs = [rows, weight] if bias is None else [rows, weight, bias]
    return edit.put(site.node, "Gemm", inputs, result, attributes={"transB": 1})


def _put_dequantize(
    edit: Edit, anchor: ir.Node, quantized: ir.Value, scales: ir.Value, zero_points: ir.Value | None = None
) -> ir.Value:
    dequantized = edit.value(ir.DataType.FLOAT, shape_of(quantized))
    inputs = [quantized, scales] if zero_points is None else [quantized, scales, zero_points]
    return edit.put(anchor, "DequantizeLinear", inputs, dequantized, attributes={"axis": 0})


def count_of(shape: Sequence[Any]) -> int | None:
    """Return the number of elements, None if the batch is open."""
    return prod(shape) if all(isinstance(size, int) for size in shape) else None
