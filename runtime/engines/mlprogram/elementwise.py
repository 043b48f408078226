"""Operators of ML programs that work on one element at a time, or along axes: by MIL's names and arguments.

Floats arrive as float32; the executor converts results to the type that the program declares.

Source: https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html
"""

from collections.abc import Callable, Mapping
from math import erf as exact_erf
from math import pi
from typing import Any

import numpy as np

from pocketdiffusion.runtime.runner import Array

_STEP = 1 / 64
_GRID = np.arange(-6, 6 + _STEP, _STEP)
_ERF = np.array([exact_erf(x) for x in _GRID], np.float32)
_SLOPE = (2 / np.sqrt(pi) * np.exp(-(_GRID**2))).astype(np.float32)


def erf(x: Array) -> Array:
    """Compute the error function to 1e-7, by three terms of Taylor's series from the nearest point of a grid. From |x|
    = 6 on it is -1 or 1."""
    inside = np.clip(np.nan_to_num(x), -6, 6)
    index = np.rint((inside + 6) / np.float32(_STEP)).astype(np.int32)
    near = (index * np.float32(_STEP) - 6).astype(np.float32)
    d = inside - near
    slopes = 1 - near * d + (4 * near * near - 2) * d * d / 6
    value: Array = np.where(np.isnan(x), x, _ERF[index] + _SLOPE[index] * d * slopes)
    return value


def sigmoid(x: Array) -> Array:
    value: Array = 1 / (1 + np.exp(-x))
    return value


def silu(x: Array) -> Array:
    return x * sigmoid(x)


def gelu(x: Array, mode: str = "EXACT") -> Array:
    """Compute x * Phi(x), or one of the approximations of https://arxiv.org/abs/1606.08415."""
    half = np.float32(0.5)
    if mode == "SIGMOID_APPROXIMATION":
        value: Array = x * sigmoid(np.float32(1.702) * x)
    elif mode == "TANH_APPROXIMATION":
        inner = np.float32(np.sqrt(2 / pi)) * (x + np.float32(0.044715) * x**3)
        value = half * x * (1 + np.tanh(inner))
    elif mode == "EXACT":
        value = half * x * (1 + erf(x * np.float32(0.5**0.5)))
    else:
        raise ValueError(f"there is no mode {mode}")
    return value


def cast(x: Array, dtype: str) -> Array:
    """Return `x`: the executor converts it to the declared type. Floats are truncated towards 0; all but 0 is true."""
    return x


def select(cond: Array, a: Array, b: Array) -> Array:
    return np.where(cond, a, b)


def softmax(x: Array, axis: Any = -1) -> Array:
    weights: Array = x - x.max(int(axis), keepdims=True)
    np.exp(weights, out=weights)  # in place: the weights of an attention over 4096 tokens are half a gigabyte
    weights /= weights.sum(int(axis), keepdims=True)
    return weights


def reduce_mean(x: Array, axes: Any = None, keep_dims: Any = False) -> Array:
    return np.asarray(x.mean(_axes(axes, x), keepdims=bool(keep_dims)))


def reduce_max(x: Array, axes: Any = None, keep_dims: Any = False) -> Array:
    return np.asarray(x.max(_axes(axes, x), keepdims=bool(keep_dims)))


def reduce_argmax(x: Array, axis: Any = -1, keep_dims: Any = False, output_dtype: str = "int32") -> Array:
    """Return the index of the maximum along `axis`, the first one on ties. The executor converts it to the declared
    type."""
    return np.asarray(x.argmax(int(axis), keepdims=bool(keep_dims)))


def layer_norm(x: Array, axes: Any = None, gamma: Any = None, beta: Any = None, epsilon: Any = 1e-5) -> Array:
    """Normalize `x` over `axes`. `gamma` and `beta` have the shape of these axes."""
    over = _axes(axes, x)
    spread = [size if axis in over else 1 for axis, size in enumerate(x.shape)]
    centred = x - x.mean(over, keepdims=True)
    value: Array = centred / np.sqrt(np.square(centred).mean(over, keepdims=True) + np.float32(epsilon))
    value = value if gamma is None else value * gamma.reshape(spread)
    return value if beta is None else value + beta.reshape(spread)


def batch_norm(
    x: Array, mean: Array, variance: Array, gamma: Any = None, beta: Any = None, epsilon: Any = 1e-5
) -> Array:
    """Normalize `x` by channel, which is axis 1. coremltools also writes a scale and a shift by channel so."""

    def spread(values: Array) -> Array:
        return values.reshape(-1, *[1] * (x.ndim - 2))

    value: Array = (x - spread(mean)) / np.sqrt(spread(variance) + np.float32(epsilon))
    value = value if gamma is None else value * spread(gamma)
    return value if beta is None else value + spread(beta)


def _axes(axes: Any, x: Array) -> tuple[int, ...]:
    return tuple(range(x.ndim)) if axes is None else tuple(int(axis) % x.ndim for axis in axes)


def _unary(function: Callable[..., Any]) -> Callable[..., Array]:
    return lambda x: np.asarray(function(x))


def _binary(function: Callable[..., Any]) -> Callable[..., Array]:
    return lambda x, y: np.asarray(function(x, y))


OPERATORS: Mapping[str, Callable[..., Any]] = {
    "add": _binary(np.add),
    "batch_norm": batch_norm,
    "cast": cast,
    "cos": _unary(np.cos),
    "equal": _binary(np.equal),
    "exp": _unary(np.exp),
    "gelu": gelu,
    "greater_equal": _binary(np.greater_equal),
    "layer_norm": layer_norm,
    "maximum": _binary(np.maximum),
    "mul": _binary(np.multiply),
    "pow": _binary(np.power),
    "real_div": _binary(np.divide),
    "reduce_argmax": reduce_argmax,
    "reduce_max": reduce_max,
    "reduce_mean": reduce_mean,
    "select": select,
    "sigmoid": sigmoid,
    "silu": silu,
    "sin": _unary(np.sin),
    "softmax": softmax,
    "sqrt": _unary(np.sqrt),
    "square": _unary(np.square),
    "sub": _binary(np.subtract),
    "tanh": _unary(np.tanh),
}
