"""All weights read once, in pieces: the fingerprint of their files, and the first value of each that is not finite."""

import hashlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketdiffusion.export.checkpoints.tensor import FLOATS, LazyTensor, Stored, widen
from pocketdiffusion.runtime.errors import UserError

PIECE = 1 << 20  # bytes: a piece that fits a processor's cache is read, hashed and checked at once

# An unsigned type of the same width, the mask of the bits of |x|, and the least of them that is not finite.
_BITS = {
    "float32": (np.uint32, 0x7FFFFFFF, 0x7F800000),
    "float16": (np.uint16, 0x7FFF, 0x7C00),
    "bfloat16": (np.uint16, 0x7FFF, 0x7F80),
}


@dataclass(frozen=True)
class NotFinite:
    """The first value of a tensor that is not finite in float32: at `index` it is `value`."""

    place: Stored
    name: str
    index: tuple[int, ...]
    value: float


@dataclass(frozen=True)
class Content:
    """`fingerprint` is the sha256 (hex) over the weight files' names and sha256 sums. `broken` is by (file, byte
    offset)."""

    fingerprint: str
    broken: Mapping[tuple[Path, int], NotFinite]


def read_content(files: Mapping[str, Path], tensors: Mapping[str, Mapping[str, LazyTensor]]) -> Content:
    """Read the weight `files`, by the names that enter the fingerprint, once and in pieces. `tensors` are the tensors
    in them, by component."""
    by_file: dict[Path, dict[Stored, str]] = {}
    for named in tensors.values():
        for name, tensor in named.items():
            for place in tensor.places:  # which several tensors may share
                by_file.setdefault(place.file, {}).setdefault(place, name)
    total = hashlib.sha256()
    broken = {}
    for file in sorted(files):
        digest = hashlib.sha256()
        for found in _read_file(files[file], by_file.get(files[file], {}), digest):
            broken[found.place.file, found.place.offset] = found
        total.update(f"{file} {digest.hexdigest()}\n".encode())
    return Content(total.hexdigest(), broken)


class NotFiniteError(UserError):
    """A weight is NaN or infinite: the checkpoint cannot draw pictures."""


def _read_file(file: Path, tensors: Mapping[Stored, str], digest: Any) -> Iterator[NotFinite]:
    """Hash a file from beginning to end; yield for each tensor the first value that is not finite."""
    with file.open("rb") as stream:
        for place, name in sorted(tensors.items(), key=lambda item: (item[0].offset, item[0].nbytes)):
            for piece in _pieces(stream, place.offset - stream.tell()):
                digest.update(piece)
            found = None
            for piece in _pieces(stream, place.nbytes):
                digest.update(piece)
                if found is None and place.dtype in FLOATS:
                    begun = stream.tell() - place.offset - len(piece)
                    found = _first_not_finite(name, place, piece, begun)
            if found is not None:
                yield found
        for piece in _pieces(stream, sys.maxsize):
            digest.update(piece)


def _pieces(stream: BufferedReader, count: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the next `count` bytes of `stream` in pieces, fewer if the file ends before."""
    buffer = bytearray(PIECE)
    while count > 0:
        got = stream.readinto(memoryview(buffer)[: min(count, PIECE)])
        if not got:
            return
        count -= got
        yield np.frombuffer(buffer, np.uint8, got)


def _first_not_finite(name: str, place: Stored, piece: NDArray[np.uint8], begun: int) -> NotFinite | None:
    """Return the first value of a piece of a tensor that is not finite, None if there is none. `begun`: bytes of the
    tensor before the piece."""
    if not len(piece):
        return None
    if place.dtype in _BITS:  # at the speed of memory; float64 and float8 are widened
        unsigned, mask, infinite = _BITS[place.dtype]
        if (piece.view(unsigned) & unsigned(mask)).max() < infinite:
            return None
    values = widen(piece, place.dtype)
    finite = np.isfinite(values)
    if finite.all():
        return None
    first = int(finite.argmin())
    flat = first + begun * len(values) // len(piece)
    index = tuple(int(n) for n in np.unravel_index(flat, place.shape))
    return NotFinite(place, name, index, float(values[first]))
