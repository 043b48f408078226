"""Operators of ML programs that multiply matrices. Floats arrive as float32, and BLAS computes sums in float32.

Source: https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html
"""

from collections.abc import Callable, Mapping, Sequence
from math import ceil, prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from pocketdiffusion.runtime.engines.mlprogram.elementwise import softmax
from pocketdiffusion.runtime.runner import Array

COLUMNS = 1 << 24  # elements of the unfolded input that `conv` has in memory at once: 64 MB


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """Return x @ weight^T + bias, [..., out], for x [..., in] and weight [out, in]."""
    value: Array = x.reshape(-1, x.shape[-1]) @ weight.T
    value = value if bias is None else value + bias
    return value.reshape(*x.shape[:-1], len(weight))


def matmul(x: Array, y: Array, transpose_x: Any = False, transpose_y: Any = False) -> Array:
    x = x.swapaxes(-1, -2) if transpose_x else x
    value: Array = x @ (y.swapaxes(-1, -2) if transpose_y else y)
    return value


def scaled_dot_product_attention(query: Array, key: Array, value: Array, attn_mask: Array | None = None) -> Array:
    """Return softmax(q k^T / sqrt(channels)) v of [..., tokens, channels], one head at a time to save memory.

    `attn_mask` is added to the scores; a mask of booleans hides where it is false.
    """
    mixed = np.empty((*query.shape[:-1], value.shape[-1]), np.float32)
    scale = np.float32(query.shape[-1] ** -0.5)
    mask = None
    if attn_mask is not None:
        mask = np.where(attn_mask, 0, -np.inf).astype(np.float32) if attn_mask.dtype == bool else attn_mask
        mask = np.broadcast_to(mask, (*query.shape[:-1], key.shape[-2]))
    for head in np.ndindex(query.shape[:-2]):
        scores = (query[head] * scale) @ key[head].T
        scores = scores if mask is None else scores + mask[head]
        mixed[head] = softmax(scores) @ value[head]
    return mixed


def einsum(values: Sequence[Array], equation: str) -> Array:
    """Compute an einsum of two tensors, as one matrix product for each value of the indices that all three terms have.
    Raise ValueError if a term repeats an index or only one input has an index that is summed."""
    left, right, out = equation.replace("->", ",").replace(" ", "").split(",")
    x, y = values
    both = [i for i in left if i in right and i in out]
    summed = [i for i in left if i in right and i not in out]
    rows = [i for i in left if i not in right]
    columns = [i for i in right if i not in left]
    sizes = {**dict(zip(left, x.shape, strict=True)), **dict(zip(right, y.shape, strict=True))}
    if any(len(set(term)) != len(term) for term in (left, right, out)) or {*rows, *columns, *both} != set(out):
        raise ValueError(f"the equation {equation} is not supported")

    def matrices(array: Array, term: str, first: list[str], second: list[str]) -> Array:
        order = [term.index(i) for i in (*both, *first, *second)]
        shape = [sizes[i] for i in both] + [prod(sizes[i] for i in group) for group in (first, second)]
        return array.transpose(order).reshape(shape)

    product = matrices(x, left, rows, summed) @ matrices(y, right, summed, columns)
    found = [*both, *rows, *columns]
    value: Array = product.reshape([sizes[i] for i in found]).transpose([found.index(i) for i in out])
    return value


def conv(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    strides: Any = (1, 1),
    pad_type: str = "valid",
    pad: Any = (0, 0, 0, 0),
    dilations: Any = (1, 1),
    groups: Any = 1,
) -> Array:
    """Convolve x [batch, in, h, w] with weight [out, in / groups, kh, kw]: a few rows at a time are unfolded and
    multiplied as one matrix."""
    (sh, sw), (dh, dw), parts = map(int, strides), map(int, dilations), int(groups)
    out, inner, kh, kw = weight.shape
    top, bottom, left, right = _padding(x, weight, (sh, sw), (dh, dw), pad_type, pad)
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right))) if top + bottom + left + right else x
    windows = sliding_window_view(padded, ((kh - 1) * dh + 1, (kw - 1) * dw + 1), axis=(2, 3))
    windows = windows[:, :, ::sh, ::sw, ::dh, ::dw]
    batch, _, h, w = windows.shape[:4]
    matrix = weight.reshape(parts, out // parts, inner * kh * kw)
    value = np.empty((batch, parts, out // parts, h, w), np.float32)
    rows = max(1, COLUMNS // (inner * kh * kw * w))
    for sample in range(batch):
        for part in range(parts):
            own = windows[sample, part * inner : (part + 1) * inner]
            for row in range(0, h, rows):
                columns = own[:, row : row + rows].transpose(0, 3, 4, 1, 2).reshape(inner * kh * kw, -1)
                value[sample, part, :, row : row + rows] = (matrix[part] @ columns).reshape(out // parts, -1, w)
    value = value.reshape(batch, out, h, w)
    return value if bias is None else value + bias.reshape(-1, 1, 1)


def _padding(
    x: Array, weight: Array, strides: tuple[int, int], dilations: tuple[int, int], pad_type: str, pad: Any
) -> tuple[int, int, int, int]:
    """Return the padding at top, bottom, left and right. If it is odd, "same" pads more after, "same_lower" before."""
    if pad_type == "custom":
        top, bottom, left, right = map(int, pad)
        return top, bottom, left, right
    if pad_type == "valid":
        return 0, 0, 0, 0
    if pad_type not in ("same", "same_lower"):
        raise ValueError(f"there is no pad_type {pad_type}")
    found: list[int] = []
    for axis in (0, 1):
        size, kernel = x.shape[2 + axis], (weight.shape[2 + axis] - 1) * dilations[axis] + 1
        total = max((ceil(size / strides[axis]) - 1) * strides[axis] + kernel - size, 0)
        less, more = total // 2, total - total // 2
        found += [less, more] if pad_type == "same" else [more, less]
    return found[0], found[1], found[2], found[3]


OPERATORS: Mapping[str, Callable[..., Any]] = {
    "conv": conv,
    "einsum": einsum,
    "linear": linear,
    "matmul": matmul,
    "scaled_dot_product_attention": scaled_dot_product_attention,
}
