"""Integer products in an ONNX graph: an operator's input is rounded to uint8, its weight to int8, and the sums, which
are exact, become float32 again. So the graph rounds nothing that its plan does not round.

A convolution is the product of its patches: quantized values with channels last, gathered by index, one row per output
pixel. onnxruntime's QLinearConv also rounds its output to 8 bits, which loses 1.6 dB per step, and a UNet is not faster
with it (benchmarks/RESULTS.md). Activations are uint8 and weights int8: onnxruntime's kernels for x86 compute this
pair at twice the speed of uint8 with uint8, and at nine times the speed of int8 with int8.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, prod
from typing import Any

import numpy as np
import onnx_ir as ir

from pocketdiffusion.export.backends.onnx.edit import Edit, shape_of
from pocketdiffusion.export.backends.onnx.lowering import Profile
from pocketdiffusion.export.backends.onnx.quantization.quantized_values import (
    Extracts,
    linear,
    put_scales,
    put_stored,
    put_zero_points,
)
from pocketdiffusion.export.backends.onnx.quantization.sites import Site, ints
from pocketdiffusion.export.backends.onnx.weights import Extract, Weight
from pocketdiffusion.quantize.qparams import ValueRange, affine
from pocketdiffusion.quantize.scheme import Scheme
from pocketdiffusion.runtime.errors import ProofError

PATCHES = 4 << 20  # bytes: larger patches are gathered in bands of rows, which fit the cache better
BANDS = 16  # the largest number of bands
_OWN = "com.microsoft"


@dataclass(frozen=True)
class Rounded:
    """An activation in integers: x = (quantized - zero_point) * scale."""

    quantized: ir.Value
    scale: ir.Value
    zero_point: ir.Value


@dataclass(frozen=True)
class Activations:
    """Quantized activations of a graph. `ranges` has the value range of the input of each operator; operators that read
    the same tensor have the same range. `rounded` has the tensors that are quantized already, by tensor and kind."""

    edit: Edit
    ranges: Mapping[ir.Node, ValueRange]
    rounded: dict[tuple[ir.Value, str], Any] = field(default_factory=dict)


def unite_ranges(sites: Mapping[str, Sequence[Site]], ranges: Mapping[str, ValueRange]) -> dict[ir.Node, ValueRange]:
    """Return the value range of each operator's input, by node, united over operators that read the same tensor.
    `sites` has the operators with calibrated inputs, by weight. Raise ProofError for a weight that was not
    calibrated."""
    consumers: dict[ir.Value, list[tuple[ir.Node, ValueRange]]] = {}
    for name, places in sites.items():
        if name not in ranges:
            raise ProofError(
                f"{name}: the plan has no calibrated value range for the input of this weight's operator: run "
                "calibration (export.quantization.calibrate) before emitting"
            )
        for site in places:
            consumers.setdefault(site.x, []).append((site.node, ranges[name]))
    united = {}
    for found in consumers.values():
        low, high = min(each.low for _, each in found), max(each.high for _, each in found)
        united.update({node: ValueRange(low, high) for node, _ in found})
    return united


def lower_product(
    activations: Activations,
    weight: Weight,
    scheme: Scheme,
    sites: Sequence[Site],
    profile: Profile,
    extracts: Extracts,
) -> None:
    """Replace the operators of one weight by integer products. Raise ProofError for a grouped convolution, or one whose
    input is not [batch, channels, height, width]."""
    edit, first = activations.edit, sites[0].node
    shape = weight.ref.shape
    if len(shape) == 2:
        rows = shape[::-1]
        extract: Extract = lambda stored: linear(stored).quantized.T  # noqa: E731
    elif len(shape) == 4 and all(shape[1] == shape_of(site.x)[1] for site in sites):
        rows = (prod(shape[1:]), shape[0])
        extract = lambda stored: linear(stored).quantized.transpose(2, 3, 1, 0).reshape(rows)  # noqa: E731
    else:
        raise ProofError(f"{weight.name}: there are no integer products for such a convolution: keep its input float")

    def put_weight() -> tuple[ir.Value, ir.Value]:
        quantized = put_stored(edit, first, weight, scheme.bits, rows, extract, extracts)
        return quantized, put_zero_points(edit, weight, (), extracts)

    scales = put_scales(edit, weight, extracts)
    for site in sites:
        rounded = _round(activations, site, scheme)
        if profile == "ort":
            product = _Product(edit, site, rounded, put_weight, scales, fused=True)
        else:
            both = edit.value(ir.DataType.FLOAT, shape[:1])
            edit.put(site.node, "Mul", [scales, rounded.scale], both)
            product = _Product(edit, site, rounded, put_weight, both, fused=False)
        result = _convolve(product, shape) if site.operator == "conv" else product.put(rounded.quantized)
        edit.replace(site.output, result, site.nodes)


def _round(activations: Activations, site: Site, scheme: Scheme) -> Rounded:
    """Return the site's input as uint8. Operators that read the same tensor share it."""
    x, edit = site.x, activations.edit
    key = (x, scheme.activation)
    if key not in activations.rounded:
        quantized = edit.value(ir.DataType.UINT8, shape_of(x))
        if scheme.activation == "dynamic":
            scale, zero_point = edit.value(ir.DataType.FLOAT, ()), edit.value(ir.DataType.UINT8, ())
            edit.put(site.node, "DynamicQuantizeLinear", [x], quantized, scale, zero_point, behind=x)
            activations.rounded[key] = Rounded(quantized, scale, zero_point)
        else:
            step, middle = affine(activations.ranges[site.node], 8)
            scale, zero_point = (
                edit.constant(np.array(step, np.float32)),
                edit.constant(np.array(middle + 128, np.uint8)),
            )
            edit.put(site.node, "QuantizeLinear", [x, scale, zero_point], quantized, behind=x)
            activations.rounded[key] = Rounded(quantized, scale, zero_point)
    rounded: Rounded = activations.rounded[key]
    return rounded


@dataclass(frozen=True)
class _Product:
    """The product of quantized values [..., inputs] of one operator with its weight. `put_weight` returns the weight
    [inputs, out] and its zero point under new names, for one node. `scales` are the weight's if one node computes
    everything (`fused`), else the scales of the integer sums."""

    edit: Edit
    site: Site
    rounded: Rounded
    put_weight: Callable[[], tuple[ir.Value, ir.Value]]
    scales: ir.Value
    fused: bool

    def put(self, quantized: ir.Value) -> ir.Value:
        """Return the product of uint8 [..., inputs] with the weight, plus the bias, as float32 [..., out]."""
        edit, node, bias = self.edit, self.site.node, self.site.bias
        weight, zero_point = self.put_weight()
        shape = [*shape_of(quantized)[:-1], shape_of(weight)[1]]
        result = edit.value(ir.DataType.FLOAT, shape)
        if self.fused:
            inputs = [quantized, weight, self.rounded.scale, self.scales, self.rounded.zero_point, zero_point]
            more = [] if bias is None else [bias]
            return edit.put(node, "MatMulIntegerToFloat", [*inputs, *more], result, domain=_OWN)
        sums = edit.value(ir.DataType.INT32, shape)
        edit.put(node, "MatMulInteger", [quantized, weight, self.rounded.zero_point, zero_point], sums)
        edit.put(node, "Cast", [sums], result, attributes={"to": ir.DataType.FLOAT})
        scaled = edit.put(node, "Mul", [result, self.scales], edit.value(ir.DataType.FLOAT, shape))
        if bias is None:
            return scaled
        return edit.put(node, "Add", [scaled, bias], edit.value(ir.DataType.FLOAT, shape))


def _convolve(product: _Product, shape: Sequence[int]) -> ir.Value:
    """Return the convolution as a product of patches, whose columns are height, width and channels of the kernel."""
    edit, site, node = product.edit, product.site, product.site.node
    batch, _, height, width = shape_of(site.x)
    *_, out_height, out_width = shape_of(site.output)
    last = edit.value(ir.DataType.UINT8, [batch, height, width, shape[1]])
    edit.put(node, "Transpose", [product.rounded.quantized], last, attributes={"perm": [0, 2, 3, 1]})
    strides, pads = ints(node, "strides", (1, 1)), ints(node, "pads", (0, 0, 0, 0))
    if tuple(shape[2:]) == strides == (1, 1) and not any(pads):
        result = product.put(last)
    else:
        pixels = [product.put(patches) for patches in _patches(product, last, shape, (out_height, out_width))]
        joined = pixels[0]
        if len(pixels) > 1:
            joined = edit.value(ir.DataType.FLOAT, [batch, out_height * out_width, shape[0]])
            edit.put(node, "Concat", pixels, joined, attributes={"axis": 1})
        sizes = [out_height, out_width, shape[0]]
        result = edit.reshape(node, joined, [0, *sizes], [batch, *sizes])
    turned = edit.value(ir.DataType.FLOAT, shape_of(site.output))
    return edit.put(node, "Transpose", [result], turned, attributes={"perm": [0, 3, 1, 2]})


def _patches(product: _Product, x: ir.Value, shape: Sequence[int], out: tuple[int, int]) -> list[ir.Value]:
    """Return the patches, uint8 [batch, pixels, kernel], of `x` uint8 [batch, height, width, channels], in bands of
    rows."""
    edit, node = product.edit, product.site.node
    _, channels, *kernel = shape
    (down, right), (apart, aside) = ints(node, "strides", (1, 1)), ints(node, "dilations", (1, 1))
    top, left, bottom, end = ints(node, "pads", (0, 0, 0, 0))
    batch, height, width, _ = shape_of(x)
    if top or left or bottom or end:
        height, width = height + top + bottom, width + left + end
        around = edit.constant(np.array([0, top, left, 0, 0, bottom, end, 0], np.int64))
        padded = edit.value(ir.DataType.UINT8, [batch, height, width, channels])
        x = edit.put(node, "Pad", [x, around, product.rounded.zero_point], padded)
    flat = edit.reshape(node, x, [0, -1, channels], [batch, height * width, channels])
    columns = prod(kernel) * channels
    rows = min(out[0], max(PATCHES // (columns * out[1]), ceil(out[0] / BANDS), 1))
    found = []
    for row in range(0, out[0], rows):
        count = min(rows, out[0] - row)
        band = flat
        if count < out[0]:
            start, lines = row * down, (count - 1) * down + (kernel[0] - 1) * apart + 1
            band = edit.value(ir.DataType.UINT8, [batch, lines * width, channels])
            limits = [edit.constant(np.array([n], np.int64)) for n in (start * width, (start + lines) * width, 1)]
            edit.put(node, "Slice", [flat, *limits], band)
        y, x_, a, b = np.ogrid[:count, : out[1], : kernel[0], : kernel[1]]
        places = ((y * down + a * apart) * width + x_ * right + b * aside).astype(np.int32)
        index = edit.constant(places.reshape(count * out[1], -1))
        pixels = edit.value(ir.DataType.UINT8, [batch, *shape_of(index), channels])
        edit.put(node, "Gather", [band, index], pixels, attributes={"axis": 1})
        sizes = [count * out[1], columns]
        found.append(edit.reshape(node, pixels, [0, *sizes], [batch, *sizes]))
    return found
