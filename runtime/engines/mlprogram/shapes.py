"""Operators of ML programs that move elements and compute nothing: by MIL's names and arguments.

Source: https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pocketdiffusion.runtime.runner import Array


def reshape(x: Array, shape: Array) -> Array:
    """Reshape `x`. A size of 0 is replaced by the size of the same axis of `x`, a size of -1 by the remaining one."""
    return x.reshape([x.shape[axis] if size == 0 else int(size) for axis, size in enumerate(shape)])


def transpose(x: Array, perm: Array) -> Array:
    return x.transpose([int(axis) for axis in perm])


def expand_dims(x: Array, axes: Array) -> Array:
    return np.expand_dims(x, tuple(int(axis) for axis in axes))


def squeeze(x: Array, axes: Array | None = None) -> Array:
    return np.squeeze(x, None if axes is None else tuple(int(axis) for axis in axes))


def concat(values: Sequence[Array], axis: Any, interleave: Any = False) -> Array:
    """Concatenate along `axis`, with `interleave` one slice of each value in turn."""
    if not interleave:
        return np.concatenate(values, int(axis))
    at = int(axis) % values[0].ndim
    shape = list(values[0].shape)
    shape[at] *= len(values)
    return np.stack(values, at + 1).reshape(shape)


def stack(values: Sequence[Array], axis: Any) -> Array:
    return np.stack(values, int(axis))


def split(x: Array, axis: Any, num_splits: Any = None, split_sizes: Any = None) -> tuple[Array, ...]:
    if split_sizes is None:
        return tuple(np.split(x, int(num_splits), int(axis)))
    return tuple(np.split(x, np.cumsum(split_sizes)[:-1].tolist(), int(axis)))


def slice_by_index(
    x: Array,
    begin: Array,
    end: Array,
    stride: Any = None,
    begin_mask: Any = None,
    end_mask: Any = None,
    squeeze_mask: Any = None,
) -> Array:
    """Slice `x` as numpy does. An axis with begin_mask or end_mask begins or ends as the axis of `x` does; an axis with
    squeeze_mask is indexed by its begin."""
    steps = [1] * x.ndim if stride is None else [int(step) for step in stride]
    open_begin, open_end, dropped = (
        [False] * x.ndim if mask is None else [bool(flag) for flag in mask]
        for mask in (begin_mask, end_mask, squeeze_mask)
    )
    index: list[slice | int] = []
    for axis in range(x.ndim):
        first = None if open_begin[axis] else int(begin[axis])
        if dropped[axis]:
            index.append(first or 0)
        else:
            index.append(slice(first, None if open_end[axis] else int(end[axis]), steps[axis]))
    return np.asarray(x[tuple(index)])


def gather(x: Array, indices: Array, axis: Any = 0, batch_dims: Any = 0, validate_indices: Any = False) -> Array:
    """Return the elements of `x` at `indices` along `axis`. Negative indices count from the end; an index out of range
    is an error."""
    if batch_dims:
        raise ValueError("batch_dims is not supported")
    return np.asarray(np.take(x, indices.astype(np.int64), int(axis)))


def gather_nd(x: Array, indices: Array, batch_dims: Any = 0, validate_indices: Any = False) -> Array:
    """Return the elements of `x` at `indices`, whose last axis is an index into the first axes of `x`."""
    if batch_dims:
        raise ValueError("batch_dims is not supported")
    return np.asarray(x[tuple(np.moveaxis(indices.astype(np.int64), -1, 0))])


def pad(x: Array, pad: Array, mode: str = "constant", constant_val: Any = 0.0) -> Array:
    """Pad `x`. `pad` has the widths before and after of the last axes."""
    widths = np.asarray(pad, np.int64).reshape(-1, 2).tolist()
    widths = [[0, 0]] * (x.ndim - len(widths)) + widths
    if mode == "constant":
        return np.pad(x, widths, constant_values=constant_val)
    if mode in ("reflect", "replicate"):
        return np.pad(x, widths, mode="reflect" if mode == "reflect" else "edge")
    raise ValueError(f"there is no mode {mode}")


def upsample_nearest_neighbor(x: Array, scale_factor_height: Any = 1, scale_factor_width: Any = 1) -> Array:
    """Repeat the last two axes of `x` by integer factors."""
    for axis, factor in ((-2, float(scale_factor_height)), (-1, float(scale_factor_width))):
        if factor != int(factor):
            raise ValueError(f"a scale of {factor} is not supported")
        x = np.repeat(x, int(factor), axis)
    return x


OPERATORS: Mapping[str, Callable[..., Any]] = {
    "concat": concat,
    "expand_dims": expand_dims,
    "gather": gather,
    "gather_nd": gather_nd,
    "pad": pad,
    "reshape": reshape,
    "slice_by_index": slice_by_index,
    "split": split,
    "squeeze": squeeze,
    "stack": stack,
    "transpose": transpose,
    "upsample_nearest_neighbor": upsample_nearest_neighbor,
}
