"""Recorded arrays on disk, each stored once: as mapped pages, which the system can drop from memory and read again."""

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from tempfile import TemporaryFile
from typing import TypeVar

import numpy as np

from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.verify.recording import Case

Name = TypeVar("Name", bound=Hashable)
_ALIGNMENT = 64  # bytes: a multiple of every dtype's size


class ArrayStore:
    """A file without a name, which exists as long as one of its arrays."""

    def __init__(self) -> None:
        self._file = TemporaryFile()
        self._kept: dict[tuple[bytes, str, tuple[int, ...]], Array] = {}

    def put(self, arrays: Mapping[Name, Array]) -> dict[Name, Array]:
        """Write those arrays that are not stored yet; return read-only views of the file by name. The file is mapped
        once per call."""
        keys = {name: _key(array) for name, array in arrays.items()}
        new = {key: np.ascontiguousarray(arrays[name]) for name, key in keys.items() if key not in self._kept}
        begin = self._file.seek(0, 2)
        places: dict[tuple[bytes, str, tuple[int, ...]], int] = {}
        for key, array in new.items():
            place = -(-self._file.seek(0, 2) // _ALIGNMENT) * _ALIGNMENT
            self._file.seek(place)
            self._file.write(array.tobytes() or b"\0")
            places[key] = place
        self._file.flush()
        if new:
            mapped = np.asarray(np.memmap(self._file, np.uint8, "r", begin, (self._file.seek(0, 2) - begin,)))
            for key, array in new.items():
                start = places[key] - begin
                self._kept[key] = mapped[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        return {name: self._kept[key] for name, key in keys.items()}

    def put_calls(self, calls: Mapping[str, Sequence[Case]]) -> dict[str, tuple[Case, ...]]:
        """Store the arrays of all calls as `put` does. Return {graph: cases} with the stored arrays."""
        named = {
            (graph, number, side, name): array
            for graph, each in calls.items()
            for number, case in enumerate(each)
            for side, arrays in (("in", case.inputs), ("out", case.outputs))
            for name, array in arrays.items()
        }
        kept = self.put(named)

        def view(graph: str, number: int, side: str, names: Mapping[str, Array]) -> dict[str, Array]:
            return {name: kept[graph, number, side, name] for name in names}

        return {
            graph: tuple(
                replace(case, inputs=view(graph, n, "in", case.inputs), outputs=view(graph, n, "out", case.outputs))
                for n, case in enumerate(each)
            )
            for graph, each in calls.items()
        }


def _key(array: Array) -> tuple[bytes, str, tuple[int, ...]]:
    return hashlib.blake2b(array.tobytes(), digest_size=16).digest(), array.dtype.str, array.shape
