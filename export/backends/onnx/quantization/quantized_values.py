"""A weight of integers in an ONNX graph: its codes and scales, and the DequantizeLinear that makes floats of them.

DequantizeLinear runs at each step, just before the operator, so that onnxruntime holds the codes alone; a Cast and a
Mul it would compute when it loads the file, and hold in float32 (benchmarks/RESULTS.md). A row of the codes has one
scale: an output channel, or a block of one. int4 is widened by a Cast, which onnxruntime does run at load time: its
DequantizeLinear of int4 takes three times as long as that of int8.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from pocketdiffusion.export.backends.onnx.edit import Edit, rank, shape_of
from pocketdiffusion.export.backends.onnx.quantization.sites import Site
from pocketdiffusion.export.backends.onnx.refusals import NARROW
from pocketdiffusion.export.backends.onnx.weights import Take, Weight
from pocketdiffusion.quantize.quantized_tensor import Linear, Stored
from pocketdiffusion.quantize.scheme import Scheme

Taken = dict[ir.Value, Take]  # what the values of the graph that stand for one weight take of it


def linear(stored: Stored) -> Linear:
    """What was stored as integers."""
    assert isinstance(stored, Linear)
    return stored


def put_codes(
    edit: Edit,
    anchor: ir.Node,
    weight: Weight,
    bits: int,
    shape: Sequence[int],
    turn: Callable[[NDArray[np.int8]], NDArray[np.int8]],
    taken: Taken,
) -> ir.Value:
    """The codes as `turn` leaves them, int8 of that shape, under the weight's name."""
    stored_as = ir.DataType.INT4 if bits <= NARROW else ir.DataType.INT8
    codes = edit.value(stored_as, shape, weight.name)
    taken[codes] = lambda stored: turn(linear(stored).quantized)
    if bits > NARROW:
        return codes
    widened = edit.value(ir.DataType.INT8, shape)
    return edit.put(anchor, "Cast", [codes], widened, attributes={"to": ir.DataType.INT8})


def put_scales(edit: Edit, weight: Weight, taken: Taken) -> ir.Value:
    """Those of the output channels, float32 [out], inside the model file."""
    scales = edit.value(ir.DataType.FLOAT, weight.ref.shape[:1], f"{weight.name}.scale")
    taken[scales] = lambda stored: linear(stored).scale.reshape(-1)
    return scales


def put_zeros(edit: Edit, weight: Weight, shape: Sequence[int], taken: Taken) -> ir.Value:
    """The code of zero, which is 0. onnxruntime on x86 without VNNI turns codes of 8 bits into uint8, each weight's
    with its own."""
    zeros = edit.value(ir.DataType.INT8, shape, f"{weight.name}.zero")
    taken[zeros] = lambda stored: np.zeros(shape, np.int8)
    return zeros


def put_block_scales(edit: Edit, anchor: ir.Node, weight: Weight, blocks: int, taken: Taken) -> ir.Value:
    """Those of the blocks, float32 [out, blocks]; in the data file they are float16, which holds them exactly."""
    shape = (weight.ref.shape[0], blocks)
    halves = edit.value(ir.DataType.FLOAT16, shape, f"{weight.name}.scale")
    taken[halves] = lambda stored: linear(stored).scale.reshape(shape).astype(np.float16)
    singles = edit.value(ir.DataType.FLOAT, shape)
    return edit.put(anchor, "Cast", [halves], singles, attributes={"to": ir.DataType.FLOAT})


def blocks_of(weight: Weight, scheme: Scheme) -> int:
    """How many scales an output channel has."""
    inputs = weight.ref.shape[1]
    return inputs // scheme.group if scheme.group and inputs % scheme.group == 0 else 1


def dequantize(edit: Edit, anchor: ir.Node, weight: Weight, scheme: Scheme, taken: Taken) -> ir.Value:
    """The weight as float32, in the shape that it has in the checkpoint."""
    shape, blocks = weight.ref.shape, blocks_of(weight, scheme)
    rows = (shape[0] * blocks, prod(shape) // (shape[0] * blocks)) if blocks > 1 else shape
    codes = put_codes(edit, anchor, weight, scheme.bits, rows, lambda codes: codes.reshape(rows), taken)
    zeros = put_zeros(edit, weight, rows[:1], taken) if scheme.bits == 8 else None
    if blocks == 1:
        return _put_dequantize(edit, anchor, codes, put_scales(edit, weight, taken), zeros)
    scales = edit.reshape(anchor, put_block_scales(edit, anchor, weight, blocks, taken), [-1], rows[:1])
    return edit.reshape(anchor, _put_dequantize(edit, anchor, codes, scales, zeros), shape, shape)


def gather_codes(edit: Edit, weight: Weight, scheme: Scheme, sites: Sequence[Site], taken: Taken) -> None:
    """Looks up the codes of an embedding and their scales, so that only the rows that are asked for become floats."""
    first, blocks = sites[0].node, blocks_of(weight, scheme)
    shape = weight.ref.shape
    codes = put_codes(edit, first, weight, scheme.bits, shape, lambda codes: codes, taken)
    scales = put_block_scales(edit, first, weight, blocks, taken)
    for site in sites:
        found = []
        for table in (codes, scales):
            assert table.dtype is not None
            rows = edit.value(table.dtype, [*shape_of(site.x), shape_of(table)[1]])
            found.append(edit.put(site.node, "Gather", [table, site.x], rows))
        count = count_of(shape_of(found[1]))
        rows = edit.reshape(site.node, found[0], [-1, shape[1] // blocks], [count, shape[1] // blocks])
        whole = _put_dequantize(edit, site.node, rows, edit.reshape(site.node, found[1], [-1], [count]))
        edit.replace(site.output, edit.restore_shape(site.node, whole, site.output), site.nodes)


def put_rows(edit: Edit, anchor: ir.Node, x: ir.Value, behind: ir.Value | None = None) -> ir.Value:
    """`x` as a matrix: all dimensions but the last are one."""
    if rank(x) == 2:
        return x
    *outer, last = shape_of(x)
    return edit.reshape(anchor, x, [-1, last], [count_of(outer), last], behind=behind)


def put_gemm(edit: Edit, site: Site, rows: ir.Value, weight: ir.Value, bias: ir.Value | None) -> ir.Value:
    """rows W^T + bias, for a weight [out, in] as the checkpoint has it."""
    result = edit.value(ir.DataType.FLOAT, [shape_of(rows)[0], shape_of(weight)[0]])
    inputs = [rows, weight] if bias is None else [rows, weight, bias]
    return edit.put(site.node, "Gemm", inputs, result, attributes={"transB": 1})


def _put_dequantize(
    edit: Edit, anchor: ir.Node, codes: ir.Value, scales: ir.Value, zeros: ir.Value | None = None
) -> ir.Value:
    whole = edit.value(ir.DataType.FLOAT, shape_of(codes))
    inputs = [codes, scales] if zeros is None else [codes, scales, zeros]
    return edit.put(anchor, "DequantizeLinear", inputs, whole, attributes={"axis": 0})


def count_of(shape: Sequence[Any]) -> int | None:
    """The number of elements, None where the batch is open."""
    return prod(shape) if all(isinstance(size, int) for size in shape) else None
