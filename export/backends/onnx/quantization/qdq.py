"""Activations of 16 bits in an ONNX graph: pairs of QuantizeLinear and DequantizeLinear, as Qualcomm's QNN wants them.

Standard operators of opset 21: what an operator takes and gives is uint16, its weight int8 with a scale for each output
channel, its bias int32. A matrix product is a Gemm, of which onnxruntime's provider for QNN makes a FullyConnected; of
a MatMul with an integer weight it does not. onnxruntime on a CPU computes such a graph in float32, between the same
roundings.
"""

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from pocketdiffusion.export.backends.onnx.edit import Edit, rank, shape_of
from pocketdiffusion.export.backends.onnx.quantization.products import Activations
from pocketdiffusion.export.backends.onnx.quantization.quantized_values import (
    Taken,
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

_LARGEST = 2.0**30  # of a bias's codes
_MIDDLE = 1 << 15
ROOM = 1.25  # what an operator gives with a rounded weight goes beyond what it gave when it was calibrated


def lower_qdq(
    activations: Activations,
    weight: Weight,
    scheme: Scheme,
    sites: Sequence[Site],
    weights: Mapping[ir.Value, Weight],
    given: ValueRange | None,
    taken: Taken,
) -> list[Part]:
    """Rounds what the operators of one weight take, and what they give where `given` says its span. Returns what
    becomes of their biases."""
    edit = activations.edit
    whole = dequantize(edit, sites[0].node, weight, scheme, taken)
    biases = []
    for site in sites:
        span = activations.spans[site.node]
        x = _take(activations, site, span)
        bias = None
        if site.bias is not None:
            bias, part = _bias(edit, site, weights[site.bias], weight, scheme, affine(span, 16)[0])
            biases.append(part)
        if site.operator == "conv":
            result = edit.value(ir.DataType.FLOAT, shape_of(site.output))
            inputs = [x, whole] if bias is None else [x, whole, bias]
            edit.put(site.node, "Conv", inputs, result, attributes=site.node.attributes)
        else:
            result = put_gemm(edit, site, x, whole, bias)
        if given is not None:
            result = _pair(edit, site.node, result, ValueRange(ROOM * given.low, ROOM * given.high))
        if site.operator == "linear" and rank(site.output) != 2:
            result = edit.restore_shape(site.node, result, site.output)
        edit.replace(site.output, result, site.nodes)
    return biases


def _take(activations: Activations, site: Site, span: ValueRange) -> ir.Value:
    """The site's input, rounded, which all that take it share: of a matrix product as a matrix."""
    x, edit = site.x, activations.edit
    key = (x, f"int16 {site.operator}")
    if key not in activations.rounded:
        rows = put_rows(edit, site.node, x, behind=x) if site.operator == "linear" else x
        activations.rounded[key] = _pair(edit, site.node, rows, span, behind=rows)
    rounded: ir.Value = activations.rounded[key]
    return rounded


def _pair(edit: Edit, anchor: ir.Node, x: ir.Value, span: ValueRange, behind: ir.Value | None = None) -> ir.Value:
    step, middle = affine(span, 16)
    scale, zero = edit.constant(np.array(step, np.float32)), edit.constant(np.array(middle + _MIDDLE, np.uint16))
    codes, back = edit.value(ir.DataType.UINT16, shape_of(x)), edit.value(ir.DataType.FLOAT, shape_of(x))
    edit.put(anchor, "QuantizeLinear", [x, scale, zero], codes, behind=behind)
    return edit.put(
        anchor, "DequantizeLinear", [codes, scale, zero], back, behind=codes if behind is not None else None
    )


def _bias(edit: Edit, site: Site, bias: Weight, weight: Weight, scheme: Scheme, step: float) -> tuple[ir.Value, Part]:
    """int32, in units of the product's codes, or coarser ones where those would not reach. The weight is read once
    more for its scales."""

    @cache
    def units() -> NDArray[np.float32]:
        own = linear(store(weight.read(), scheme)).scale.reshape(-1) * np.float64(step)
        units = np.maximum(own, np.abs(bias.read().astype(np.float64)) / _LARGEST).astype(np.float32)
        return np.where(units > 0, units, np.float32(1))

    def codes_of(stored: Stored) -> NDArray[np.int32]:
        return np.rint(bias.read().astype(np.float64) / units()).astype(np.int32)

    codes = edit.value(ir.DataType.INT32, bias.ref.shape, bias.name)
    scales = edit.value(ir.DataType.FLOAT, bias.ref.shape, f"{bias.name}.scale")
    back = edit.value(ir.DataType.FLOAT, bias.ref.shape)
    edit.put(site.node, "DequantizeLinear", [codes, scales], back, attributes={"axis": 0})
    return back, Part(bias, FLOAT32, {codes: codes_of, scales: lambda stored: units()})
