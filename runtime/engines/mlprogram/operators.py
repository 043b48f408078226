"""Every operator that the executor knows: the operators of Stable Diffusion's graphs from iOS 16 to 18, with plain and
compressed weights and with quantized activations, and the operators of the rewrites for the Neural Engine. Each is a
function of MIL's arguments, by name."""

from collections.abc import Callable, Mapping
from typing import Any

from pocketdiffusion.runtime.engines.mlprogram import constexpr, elementwise, integers, linear, shapes

OPERATORS: Mapping[str, Callable[..., Any]] = {
    **constexpr.OPERATORS,
    **elementwise.OPERATORS,
    **integers.OPERATORS,
    **linear.OPERATORS,
    **shapes.OPERATORS,
}
MOVES = frozenset(shapes.OPERATORS)  # their results need no rounding: every element is copied from an argument
