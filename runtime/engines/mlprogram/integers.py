"""Operators of ML programs that quantize and dequantize activations.

Source: https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html, quantization_ops of
iOS 17. Halves are rounded to the even number, as coremltools' own evaluation does.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pocketdiffusion.runtime.engines.mlprogram.constexpr import affine_dequantize
from pocketdiffusion.runtime.runner import Array


def quantize(input: Array, scale: Array, output_dtype: str, zero_point: Any = None, axis: Any = None) -> Array:
    """Return round(input / scale) + zero_point, clipped to the range of "int8" or "uint8". `scale` and `zero_point` are
    numbers or have one number for each index of `axis`. NaN becomes the lowest integer."""
    if output_dtype not in ("int8", "uint8"):
        raise ValueError(f"the integer type {output_dtype} is not known")
    ends = np.iinfo(output_dtype)
    offset = 0 if zero_point is None else _spread(zero_point, input, axis)
    quantized = np.clip(np.rint(input / _spread(scale, input, axis)) + offset, ends.min, ends.max)
    return np.nan_to_num(quantized, nan=ends.min).astype(output_dtype)


def dequantize(input: Array, scale: Array, zero_point: Any = None, axis: Any = None) -> Array:
    """Return scale * (input - zero_point) in float32."""
    offset = np.zeros((), np.float32) if zero_point is None else zero_point
    return affine_dequantize(input, offset, scale, 0 if axis is None else axis)


def _spread(values: Any, x: Array, axis: Any) -> Array:
    """Return `values` as float32, in a shape that broadcasts to `x`."""
    found = np.asarray(values, np.float32)
    if found.ndim == 0:
        return found
    shape = [1] * x.ndim
    shape[int(axis)] = -1
    return found.reshape(shape)


OPERATORS: Mapping[str, Callable[..., Any]] = {"quantize": quantize, "dequantize": dequantize}
