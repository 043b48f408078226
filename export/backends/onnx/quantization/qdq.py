"""Activations of 16 bits in an ONNX graph: pairs of QuantizeLinear and DequantizeLinear, as Qualcomm's QNN needs them.

Standard operators of opset 21: inputs and outputs of an operator are uint16, its weight int8 with a scale for each
output channel, its bias int32. A matrix product is a Gemm, which onnxruntime's provider for QNN converts to a
FullyConnected; it does not convert a MatMul with an integer weight. onnxruntime on a CPU computes such a graph in
float32, between the same roundings.
"""

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from pocketdiffusion.export.backends.onnx.edit import Edit, rank, shape_of
from pocketdiffusion.export.backends.onnx.quantization.products import Activations
from pocketdiffusion.export.backends.onnx.quantization.quantized_values import (
    Extracts,
    dequantize,
    linear,
    put_gemm,
    put_rows,
)
from pocketdiffusion.export.backends.onnx.quantization.sites import Site
from pocketdiffusion.export.backends.onnx.weights import Part, Weight
from pocketdiffusion.quantize.qparams import ValueRange, affine
from pocketdiffusion.quantize.quantized_tensor import Stored, store
from pocketdiffusion.quantize.scheme import FLOAT32, Scheme

_LARGEST = 2.0**30  # magnitude of the quantized values of a bias
_MIDDLE = 1 << 15
ROOM = 1.25  # factor on output ranges: with a rounded weight the outputs exceed the calibrated range


def lower_qdq(
    activations: Activations,
    weight: Weight,
    scheme: Scheme,
    sites: Sequence[Site],
    weights: Mapping[ir.Value, Weight],
    output_range: ValueRange | None,
    extracts: Extracts,
) -> list[Part]:
    """Round the inputs of the operators of one weight, and their outputs if `output_range` is given. Return the parts
    of their biases."""
    edit = activations.edit
    dequantized = dequantize(edit, sites[0].node, weight, scheme, extracts)
    biases = []
    for site in sites:
        value_range = activations.ranges[site.node]
        x = _rounded_input(activations, site, value_range)
        bias = None
        if site.bias is not None:
            bias, part = _bias(edit, site, weights[site.bias], weight, scheme, affine(value_range, 16)[0])
            biases.append(part)
        if site.operator == "conv":
            result = edit.value(ir.DataType.FLOAT, shape_of(site.output))
            inputs = [x, dequantized] if bias is None else [x, dequantized, bias]
            edit.put(site.node, "Conv", inputs, result, attributes=site.node.attributes)
        else:
            result = put_gemm(edit, site, x, dequantized, bias)
        if output_range is not None:
            result = _pair(edit, site.node, result, ValueRange(ROOM * output_range.low, ROOM * output_range.high))
        if site.operator == "linear" and rank(site.output) != 2:
            result = edit.restore_shape(site.node, result, site.output)
        edit.replace(site.output, result, site.nodes)
    return biases


def _rounded_input(activations: Activations, site: Site, value_range: ValueRange) -> ir.Value:
    """Return the site's input rounded to uint16, for a matrix product as a matrix. Operators that read it share it."""
    x, edit = site.x, activations.edit
    key = (x, f"int16 {site.operator}")
    if key not in activations.rounded:
        rows = put_rows(edit, site.node, x, behind=x) if site.operator == "linear" else x
        activations.rounded[key] = _pair(edit, site.node, rows, value_range, behind=rows)
    rounded: ir.Value = activations.rounded[key]
    return rounded


def _pair(
    edit: Edit, anchor: ir.Node, x: ir.Value, value_range: ValueRange, behind: ir.Value | None = None
) -> ir.Value:
    step, middle = affine(value_range, 16)
    scale, zero_point = edit.constant(np.array(step, np.float32)), edit.constant(np.array(middle + _MIDDLE, np.uint16))
    quantized, back = edit.value(ir.DataType.UINT16, shape_of(x)), edit.value(ir.DataType.FLOAT, shape_of(x))
    edit.put(anchor, "QuantizeLinear", [x, scale, zero_point], quantized, behind=behind)
    return edit.put(
        anchor,
        "DequantizeLinear",
        [quantized, scale, zero_point],
        back,
        behind=quantized if behind is not None else None,
    )


def _bias(edit: Edit, site: Site, bias: Weight, weight: Weight, scheme: Scheme, step: float) -> tuple[ir.Value, Part]:
    """Return the dequantized bias, and its part: int32 with the scale of the integer sums, or a coarser scale if int32
    would overflow. The weight is read once more for its scales. `step` is the scale of the input."""

    @cache
    def units() -> NDArray[np.float32]:
        own = linear(store(weight.read(), scheme)).scale.reshape(-1) * np.float64(step)
        units = np.maximum(own, np.abs(bias.read().astype(np.float64)) / _LARGEST).astype(np.float32)
        return np.where(units > 0, units, np.float32(1))

    def quantize_bias(stored: Stored) -> NDArray[np.int32]:
        return np.rint(bias.read().astype(np.float64) / units()).astype(np.int32)

    quantized = edit.value(ir.DataType.INT32, bias.ref.shape, bias.name)
    scales = edit.value(ir.DataType.FLOAT, bias.ref.shape, f"{bias.name}.scale")
    back = edit.value(ir.DataType.FLOAT, bias.ref.shape)
    edit.put(site.node, "DequantizeLinear", [quantized, scales], back, attributes={"axis": 0})
    return back, Part(bias, FLOAT32, {quantized: quantize_bias, scales: lambda stored: units()})
