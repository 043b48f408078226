"""Lazy tensors: descriptions of weights, each of which is read from its file only when `read()` is called.

The kinds nest, so that a weight may be some rows of a tensor in a file, times a power of two:

    Stored      the bytes of a safetensors file
    Scaled      another tensor times a power of two     (export/float16/weight_rescaling.py)
    Reshaped    another tensor in another shape         (linear layers that old files store as 1x1 convolutions)
    Rows        successive rows of another tensor       (position embeddings, as long as the prompts; parts of a fused
                                                        projection)

Users of weights use `shape`, `dtype`, `read()`, `places` and `derivation`, and never ask which kind a tensor is.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

FLOATS = (
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "float8_e4m3fn",
    "float8_e5m2",
    "float8_e4m3fnuz",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
)
_BLOCK = 2**20  # values that are read at a time
_FEWER_BITS = {"float4_e2m1fn": 4, "float6_e2m3": 6, "float6_e3m2": 6, "bool": 8}


def bits_of(dtype: str) -> int:
    """Return the number of bits of one value of `dtype`, torch's name of a type: 16 for float16, 8 for
    float8_e4m3fn."""
    digits = dtype.partition("_")[0].lstrip("abcdefghijklmnopqrstuvwxyz")
    return _FEWER_BITS.get(dtype) or int(digits)


class LazyTensor(Protocol):
    """A tensor of the checkpoint, of any kind."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> str:
        """Return torch's name of the type in which the values are stored."""
        ...

    @property
    def places(self) -> tuple["Stored", ...]:
        """Return the places in files that `read` reads."""
        ...

    @property
    def derivation(self) -> str:
        """Return a text, without paths, of how the values are computed from the stored ones. Two models with equal
        files and equal derivations have equal weights."""
        ...

    def read(self) -> NDArray[np.float32]:
        """Return the values as float32, C order. Needs the memory of this tensor and of the tensors that it is derived
        from."""
        ...


@dataclass(frozen=True)
class Stored:
    """A tensor inside a file: little-endian, C order, beginning at byte `offset`. `dtype` is torch's name."""

    file: Path
    offset: int
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Return the bytes of the tensor in the file."""
        return math.prod(self.shape) * bits_of(self.dtype) // 8

    @property
    def places(self) -> tuple["Stored", ...]:
        return (self,)

    @property
    def derivation(self) -> str:
        return f"{self.dtype}{list(self.shape)}"

    def read(self) -> NDArray[np.float32]:
        """Return the values as float32, by plain file reads of some MB, so that no mapped page counts as memory."""
        values, width = np.empty(math.prod(self.shape), np.float32), bits_of(self.dtype) // 8
        with open(self.file, "rb") as file:
            file.seek(self.offset)
            for begin in range(0, values.size, _BLOCK):
                block = values[begin : begin + _BLOCK]
                block[:] = widen(np.fromfile(file, np.uint8, block.size * width), self.dtype)
        return values.reshape(self.shape)


@dataclass(frozen=True)
class Derived:
    """A tensor whose values follow from those of another one, `base`. Each kind adds its shape, its derivation and how
    it is read."""

    base: LazyTensor

    @property
    def dtype(self) -> str:
        return self.base.dtype

    @property
    def places(self) -> tuple[Stored, ...]:
        return self.base.places


@dataclass(frozen=True)
class Scaled(Derived):
    """2^`exponent` times another tensor."""

    exponent: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape

    @property
    def derivation(self) -> str:
        return f"2^{self.exponent} * {self.base.derivation}"

    def read(self) -> NDArray[np.float32]:
        return np.ldexp(self.base.read(), self.exponent)


@dataclass(frozen=True)
class Reshaped(Derived):
    """The values of another tensor, in the same order, in the shape `shape`."""

    shape: tuple[int, ...]

    @property
    def derivation(self) -> str:
        return f"{list(self.shape)} of {self.base.derivation}"

    def read(self) -> NDArray[np.float32]:
        return self.base.read().reshape(self.shape)


@dataclass(frozen=True)
class Rows(Derived):
    """The `count` rows from row `start` on, along the first axis, of another tensor."""

    count: int
    start: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.count, *self.base.shape[1:])

    @property
    def derivation(self) -> str:
        begin = f" from {self.start}" if self.start else ""
        return f"{self.count} rows{begin} of {self.base.derivation}"

    def read(self) -> NDArray[np.float32]:
        return self.base.read()[self.start : self.start + self.count].copy()


def scaled(tensor: LazyTensor, exponent: int) -> LazyTensor:
    """Return 2^`exponent` times `tensor`: the tensor itself for 0, and a single `Scaled` if it is one already."""
    if isinstance(tensor, Scaled):
        return scaled(tensor.base, tensor.exponent + exponent)
    return Scaled(tensor, exponent) if exponent else tensor


def places_of(tensors: Iterable[LazyTensor]) -> set[tuple[Path, int]]:
    """Return (file, byte offset) of every place that these tensors are read from."""
    return {(place.file, place.offset) for tensor in tensors for place in tensor.places}


def widen(raw: NDArray[np.uint8], dtype: str) -> NDArray[np.float32]:
    """Return the values stored in the bytes `raw` as float32: exactly, except for float64 and int64, which are rounded.
    `dtype` is torch's name of a type of one or more bytes."""
    if dtype == "bfloat16":
        return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    if dtype.startswith("float8"):
        return _float8_values(dtype)[raw]
    with np.errstate(over="ignore"):
        return raw.view(dtype).astype(np.float32)


@cache
def _float8_values(dtype: str) -> NDArray[np.float32]:
    """Return the float32 values, [256], that the 256 bytes represent."""
    values: NDArray[np.float32] = torch.arange(256, dtype=torch.uint8).view(getattr(torch, dtype)).float().numpy()
    return values
