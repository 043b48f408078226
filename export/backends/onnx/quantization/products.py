"""Products of integers in an ONNX graph: what an operator takes is rounded to uint8, its weight is int8, and the sums,
which are exact, become float32 again. So the graph computes what its plan says and nothing else is rounded.

A convolution is the product of its patches: the codes with channels last, gathered by index, a row for each pixel of
the result. onnxruntime's QLinearConv rounds what it gives to 8 bits too, which costs 1.6 dB of a step, and a whole UNet
is not faster with it (benchmarks/RESULTS.md). Codes are uint8 and weights int8: onnxruntime's kernels for x86 take that
at twice the speed of uint8 and uint8, and at nine times that of int8 and int8.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, prod
from typing import Any

import numpy as np
import onnx_ir as ir

from pocketdiffusion.export.backends.onnx.edit import Edit, shape_of
from pocketdiffusion.export.backends.onnx.lowering import Profile
from pocketdiffusion.export.backends.onnx.quantization.quantized_values import Taken, put_codes, put_scales, put_zeros
from pocketdiffusion.export.backends.onnx.quantization.sites import Site, ints
from pocketdiffusion.export.backends.onnx.weights import Weight
from pocketdiffusion.quantize.qparams import ValueRange, affine
from pocketdiffusion.quantize.scheme import Scheme
from pocketdiffusion.runtime.errors import ProofError

PATCHES = 4 << 20  # bytes: patches of more than that are made in bands of rows, which the cache likes better
BANDS = 16  # at most
_OWN = "com.microsoft"


@dataclass(frozen=True)
class Rounded:
    """An activation in integers: (codes - zero) * scale."""

    codes: ir.Value
    scale: ir.Value
    zero: ir.Value


@dataclass(frozen=True)
class Activations:
    """`spans` are those of the operators' inputs, by operator; what several take has one. `rounded` has what was put
    into the graph already, by what it was made of."""

    edit: Edit
    spans: Mapping[ir.Node, ValueRange]
    rounded: dict[tuple[ir.Value, str], Any] = field(default_factory=dict)


def unite_spans(sites: Mapping[str, Sequence[Site]], spans: Mapping[str, ValueRange]) -> dict[ir.Node, ValueRange]:
    """Of each operator's input, by node. `sites` are those that want integers of calibrated ranges, by weight. Raises
    ProofError for a weight that was not calibrated."""
    takers: dict[ir.Value, list[tuple[ir.Node, ValueRange]]] = {}
    for name, found in sites.items():
        if name not in spans:
            raise ProofError(f"{name}: nothing says what range its input has: calibrate the plan")
        for site in found:
            takers.setdefault(site.x, []).append((site.node, spans[name]))
    united = {}
    for taken in takers.values():
        whole = ValueRange(min(span.low for _, span in taken), max(span.high for _, span in taken))
        united.update({node: whole for node, _ in taken})
    return united


def lower_product(
    activations: Activations, weight: Weight, scheme: Scheme, sites: Sequence[Site], profile: Profile, taken: Taken
) -> None:
    """Computes the operators of one weight in integers. Raises ProofError for a convolution in groups, or of something
    else than pictures."""
    edit, first = activations.edit, sites[0].node
    shape = weight.ref.shape
    if len(shape) == 2:
        codes = put_codes(edit, first, weight, scheme.bits, shape[::-1], lambda codes: codes.T, taken)
    elif len(shape) == 4 and all(shape[1] == shape_of(site.x)[1] for site in sites):
        rows = (prod(shape[1:]), shape[0])
        codes = put_codes(
            edit, first, weight, scheme.bits, rows, lambda codes: codes.transpose(2, 3, 1, 0).reshape(rows), taken
        )
    else:
        raise ProofError(f"{weight.name}: there are no integer products for such a convolution: keep its input float")
    zero, scales = put_zeros(edit, weight, (), taken), put_scales(edit, weight, taken)
    for site in sites:
        rounded = _round(activations, site, scheme)
        if profile == "ort":
            product = _Product(edit, site, rounded, codes, zero, scales, fused=True)
        else:
            both = edit.value(ir.DataType.FLOAT, shape[:1])
            edit.put(site.node, "Mul", [scales, rounded.scale], both)
            product = _Product(edit, site, rounded, codes, zero, both, fused=False)
        result = _convolve(product, shape) if site.operator == "conv" else product.put(rounded.codes)
        edit.replace(site.output, result, site.nodes)


def _round(activations: Activations, site: Site, scheme: Scheme) -> Rounded:
    """The site's input as uint8, which all that take it share."""
    x, edit = site.x, activations.edit
    key = (x, scheme.activation)
    if key not in activations.rounded:
        codes = edit.value(ir.DataType.UINT8, shape_of(x))
        if scheme.activation == "dynamic":
            scale, zero = edit.value(ir.DataType.FLOAT, ()), edit.value(ir.DataType.UINT8, ())
            edit.put(site.node, "DynamicQuantizeLinear", [x], codes, scale, zero, behind=x)
            activations.rounded[key] = Rounded(codes, scale, zero)
        else:
            step, middle = affine(activations.spans[site.node], 8)
            scale, zero = edit.constant(np.array(step, np.float32)), edit.constant(np.array(middle + 128, np.uint8))
            edit.put(site.node, "QuantizeLinear", [x, scale, zero], codes, behind=x)
            activations.rounded[key] = Rounded(codes, scale, zero)
    rounded: Rounded = activations.rounded[key]
    return rounded


@dataclass(frozen=True)
class _Product:
    """Of codes [..., inputs] of one operator with its weight [inputs, out]. `scales` are those of the weight where one
    node computes all, and those of the sums elsewhere."""

    edit: Edit
    site: Site
    rounded: Rounded
    weight: ir.Value
    zero: ir.Value
    scales: ir.Value
    fused: bool

    def put(self, codes: ir.Value) -> ir.Value:
        """float32 [..., out], with the bias."""
        edit, node, bias = self.edit, self.site.node, self.site.bias
        shape = [*shape_of(codes)[:-1], shape_of(self.weight)[1]]
        result = edit.value(ir.DataType.FLOAT, shape)
        if self.fused:
            inputs = [codes, self.weight, self.rounded.scale, self.scales, self.rounded.zero, self.zero]
            more = [] if bias is None else [bias]
            return edit.put(node, "MatMulIntegerToFloat", [*inputs, *more], result, domain=_OWN)
        sums = edit.value(ir.DataType.INT32, shape)
        edit.put(node, "MatMulInteger", [codes, self.weight, self.rounded.zero, self.zero], sums)
        edit.put(node, "Cast", [sums], result, attributes={"to": ir.DataType.FLOAT})
        scaled = edit.put(node, "Mul", [result, self.scales], edit.value(ir.DataType.FLOAT, shape))
        if bias is None:
            return scaled
        return edit.put(node, "Add", [scaled, bias], edit.value(ir.DataType.FLOAT, shape))


def _convolve(product: _Product, shape: Sequence[int]) -> ir.Value:
    """By the product of patches, whose columns are height, width and channels of the kernel."""
    edit, site, node = product.edit, product.site, product.site.node
    batch, _, height, width = shape_of(site.x)
    *_, out_height, out_width = shape_of(site.output)
    last = edit.value(ir.DataType.UINT8, [batch, height, width, shape[1]])
    edit.put(node, "Transpose", [product.rounded.codes], last, attributes={"perm": [0, 2, 3, 1]})
    strides, pads = ints(node, "strides", (1, 1)), ints(node, "pads", (0, 0, 0, 0))
    if tuple(shape[2:]) == strides == (1, 1) and not any(pads):
        result = product.put(last)
    else:
        pixels = [product.put(patches) for patches in _patches(product, last, shape, (out_height, out_width))]
        whole = pixels[0]
        if len(pixels) > 1:
            whole = edit.value(ir.DataType.FLOAT, [batch, out_height * out_width, shape[0]])
            edit.put(node, "Concat", pixels, whole, attributes={"axis": 1})
        sizes = [out_height, out_width, shape[0]]
        result = edit.reshape(node, whole, [0, *sizes], [batch, *sizes])
    turned = edit.value(ir.DataType.FLOAT, shape_of(site.output))
    return edit.put(node, "Transpose", [result], turned, attributes={"perm": [0, 3, 1, 2]})


def _patches(product: _Product, x: ir.Value, shape: Sequence[int], out: tuple[int, int]) -> list[ir.Value]:
    """uint8 [batch, pixels, kernel], all or in bands, of `x` uint8 [batch, height, width, channels]."""
    edit, node = product.edit, product.site.node
    _, channels, *kernel = shape
    (down, right), (apart, aside) = ints(node, "strides", (1, 1)), ints(node, "dilations", (1, 1))
    top, left, bottom, end = ints(node, "pads", (0, 0, 0, 0))
    batch, height, width, _ = shape_of(x)
    if top or left or bottom or end:
        height, width = height + top + bottom, width + left + end
        around = edit.constant(np.array([0, top, left, 0, 0, bottom, end, 0], np.int64))
        padded = edit.value(ir.DataType.UINT8, [batch, height, width, channels])
        x = edit.put(node, "Pad", [x, around, product.rounded.zero], padded)
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
