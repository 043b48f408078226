"""All weights read once, in pieces: the fingerprint of their files, and the first number of each that is not finite."""

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketdiffusion.export.component import FLOATS, Component, TensorRef, widen
from pocketdiffusion.runtime.errors import UserError

PIECE = 1 << 20  # bytes: what fits a processor's cache is read, hashed and looked at in one go

# An unsigned type of the same width, the bits of |x|, and the least of them that is no finite number.
_BITS = {
    "float32": (np.uint32, 0x7FFFFFFF, 0x7F800000),
    "float16": (np.uint16, 0x7FFF, 0x7C00),
    "bfloat16": (np.uint16, 0x7FFF, 0x7F80),
}


@dataclass(frozen=True)
class NotFinite:
    """The first number of a tensor that is not finite in float32: at `index` it is `value`."""

    ref: TensorRef
    name: str
    index: tuple[int, ...]
    value: float


@dataclass(frozen=True)
class Content:
    """`fingerprint` is the sha256 over the weight files' names and sha256 sums. `broken` is by file and offset."""

    fingerprint: str
    broken: Mapping[tuple[Path, int], NotFinite]


def read_content(folder: Path, files: Sequence[str], tensors: Mapping[str, Mapping[str, TensorRef]]) -> Content:
    """Read the `files` below `folder`, which hold the `tensors` of each component, once and in pieces."""
    by_file: dict[Path, list[tuple[str, TensorRef]]] = {}
    for refs in tensors.values():
        for name, ref in refs.items():
            by_file.setdefault(ref.file, []).append((name, ref))
    total = hashlib.sha256()
    broken = {}
    for file in sorted(files):
        digest = hashlib.sha256()
        for found in _read_file(folder / file, by_file.get(folder / file, []), digest):
            broken[found.ref.file, found.ref.offset] = found
        total.update(f"{file} {digest.hexdigest()}\n".encode())
    return Content(total.hexdigest(), broken)


class NotFiniteError(UserError):
    """A weight is NaN or infinite: a checkpoint to draw nothing with."""


def check_finite(content: Content, parts: Sequence[Component]) -> None:
    """Raises NotFiniteError, naming file, tensor, index and value, where a weight that a part uses is not finite."""
    used = {(ref.file, ref.offset) for part in parts for ref in part.weights.values()}
    broken = [found for place, found in content.broken.items() if place in used]
    if broken:
        first = broken[0]
        more = f", and {len(broken) - 1} more tensors have such values" if len(broken) > 1 else ""
        raise NotFiniteError(
            f"{first.ref.file}: {first.name} is {first.value} at index {list(first.index)}{more}: "
            "weights that are not finite draw nothing; take a sound copy"
        )


def _read_file(file: Path, tensors: Sequence[tuple[str, TensorRef]], digest: Any) -> Iterator[NotFinite]:
    """Hash a file from end to end; of each tensor, the first number that is not finite."""
    with file.open("rb") as stream:
        for name, ref in sorted(tensors, key=lambda item: item[1].offset):
            for piece in _pieces(stream, ref.offset - stream.tell()):
                digest.update(piece)
            found = None
            for piece in _pieces(stream, ref.nbytes):
                digest.update(piece)
                if found is None and ref.dtype in FLOATS:
                    begun = stream.tell() - ref.offset - len(piece)
                    found = _first_not_finite(name, ref, piece, begun)
            if found is not None:
                yield found
        for piece in _pieces(stream, sys.maxsize):
            digest.update(piece)


def _pieces(stream: BufferedReader, count: int) -> Iterator[NDArray[np.uint8]]:
    """The next `count` bytes, as far as there are any."""
    buffer = bytearray(PIECE)
    while count > 0:
        got = stream.readinto(memoryview(buffer)[: min(count, PIECE)])
        if not got:
            return
        count -= got
        yield np.frombuffer(buffer, np.uint8, got)


def _first_not_finite(name: str, ref: TensorRef, piece: NDArray[np.uint8], begun: int) -> NotFinite | None:
    """In a piece of a tensor that begins `begun` bytes behind its start."""
    if not len(piece):
        return None
    if ref.dtype in _BITS:  # at the speed of memory; float64 and float8 are widened
        unsigned, mask, infinite = _BITS[ref.dtype]
        if (piece.view(unsigned) & unsigned(mask)).max() < infinite:
            return None
    values = widen(piece, ref.dtype)
    finite = np.isfinite(values)
    if finite.all():
        return None
    place = int(finite.argmin())
    flat = place + begun * len(values) // len(piece)
    index = tuple(int(n) for n in np.unravel_index(flat, ref.shape))
    return NotFinite(ref, name, index, float(values[place]))
