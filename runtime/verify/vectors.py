"""Conformance vectors: small numbers that the original libraries computed, which every reader of a bundle must meet.

conformance/vectors.json names them, conformance/arrays.bin holds their arrays, one after the other, little-endian. Each
vector is of one kind, which says what a reader does with each of its cases. Each array that is expected (of `start` and
`run`: each of its rows) is met where the result has its shape, is finite, and, once both are divided by the largest
|expected|, is near: the root mean square of the difference is at most 10^(-floor_db / 20), and its largest at most ten
times that. A floor of 200 dB is equality.

| kind | given | expected |
|---|---|---|
| tokens | text `prompt` | `ids`, `mask` int32 [max_length]; `cut`: UTF-8 of what did not fit |
| vocabulary | - | `vocabulary`, `merges`, `entries`: sha256 as uint8 [32], see below |
| noise | text `seed`; int32 `sizes`, `draw`, `at` | `values`: of draws of `sizes` in a row, in `draw` the `at`-th |
| start | text `sampler`; `steps`, `starts` [n]; `noise`, maybe `image` [16] | `latents` [n, 16] before the first row |
| run | as start; `outputs` [51, 16], `noise` [52, 16] | `latents`, `means` [n, 16] of the last row, of all rows |
| whole_run | as run, of one count | `timesteps` [rows], `scaled` and `latents` [rows, 16] |
| guidance | number `guidance`; `negative`, `positive` | `output` |
| decoder_scale | `latents` | `decoder_latents` |
| posterior | `parameters` [1, 2c, h, w], `noise` [1, c, h, w] | `latents` |
| picture_to_array | `picture` uint8 [h, w, 3] | `array` float32 [1, 3, h, w] |
| array_to_picture | `array` float32 [1, 3, h, w] | `picture` uint8 [h, w, 3] |

tokens and vocabulary: the number `tokenizer`, where there is one, says by which of the bundle's tokenizers, counted
from 1; without it by the first.

In a run the model is this arithmetic, in float32: in row r (from 0), `scaled` is the latents times the table's input
scale, and the output is outputs[r] + 0.25 * scaled + timestep / 1000. The noise of the start is noise[0], the noise of
row r is noise[1 + r]. With `image` the first latents are those of image to image.
`means` is the mean, in float64, of the latents after each row: it shows what later rows make small again.

vocabulary: lines "<token> <id>\\n" in order of ids; lines "<first> <second>\\n" of merges in order; and for every entry
of the vocabulary, in order of ids: its token without "</w>", as the bytes that its letters encode; if these are UTF-8,
the ids of that text (no beginning, no end), then -1, all as int32, little-endian.
"""

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pocketdiffusion.runtime.bundle.json_files import decode, one_line
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.record import Count, Record

VECTORS, ARRAYS = "conformance/vectors.json", "conformance/arrays.bin"

KINDS = (
    "tokens",
    "vocabulary",
    "noise",
    "start",
    "run",
    "whole_run",
    "guidance",
    "decoder_scale",
    "posterior",
    "picture_to_array",
    "array_to_picture",
)


class ArrayAt(Record):
    """An array inside conformance/arrays.bin: C order."""

    offset: Annotated[Count, Field(description="the byte where it begins")]
    dtype: Annotated[Literal["float32", "int32", "uint8"], Field(description="the type of its values, little-endian")]
    shape: Annotated[tuple[Count, ...], Field(description="its size along each axis")]


class Case(Record):
    """One thing to compute."""

    label: Annotated[str, Field(description="what to call it where it differs")]
    texts: Annotated[dict[str, str], Field(description="what is given as text")] = {}
    numbers: Annotated[dict[str, float], Field(description="what is given as a number")] = {}
    arrays: Annotated[dict[str, ArrayAt], Field(description="what is given as an array")] = {}
    expected: Annotated[dict[str, ArrayAt], Field(description="what comes out")]


class Vector(Record):
    """Cases that fail for one reason."""

    name: Annotated[str, Field(description="its name, of which there is one")]
    kind: Annotated[str, Field(description="what a reader does with the cases: one of the kinds of vectors.py")]
    tells: Annotated[str, Field(description="what is wrong in a reader that does not meet it")]
    floor_db: Annotated[
        float, Field(description="how near is near, in dB of the largest expected value; 200 is equality")
    ]
    cases: Annotated[tuple[Case, ...], Field(description="what to compute")]


class Vectors(Record):
    """The content of conformance/vectors.json."""

    made_by: Annotated[dict[str, str], Field(description="the libraries that computed them, with their versions")]
    vectors: Annotated[tuple[Vector, ...], Field(description="all of them; a reader of a bundle meets each")]


class Arrays:
    """The arrays of a file that is being written; equal arrays are stored once."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._offsets: dict[bytes, int] = {}
        self._size = 0

    def add(self, array: NDArray[Any]) -> ArrayAt:
        raw = array.astype(array.dtype.newbyteorder("<")).tobytes()
        if raw not in self._offsets:
            self._offsets[raw] = self._size
            padded = raw + bytes(-len(raw) % 4)
            self._parts.append(padded)
            self._size += len(padded)
        return ArrayAt.model_validate(
            {"offset": self._offsets[raw], "dtype": array.dtype.name, "shape": tuple(array.shape)}
        )

    def to_bytes(self) -> bytes:
        return b"".join(self._parts)


def find_array(raw: bytes, at: ArrayAt) -> NDArray[Any]:
    """Return the array at `at` in the bytes of the file of arrays. Raise ProofError if the file is too short."""
    dtype = np.dtype(at.dtype)
    count = prod(at.shape)  # in integers of Python, since a product of numpy's could overflow to 0
    if at.offset + count * dtype.itemsize > len(raw):
        raise ProofError(
            f"{ARRAYS} is cut off at byte {len(raw)}, in or before the array at byte {at.offset}: export again"
        )
    return np.frombuffer(raw, dtype.newbyteorder("<"), count, at.offset).reshape(at.shape).astype(dtype)


def find_arrays(raw: bytes, named: Mapping[str, ArrayAt]) -> dict[str, NDArray[Any]]:
    return {name: find_array(raw, at) for name, at in named.items()}


def read_vectors(folder: Path) -> tuple[Vectors, bytes]:
    """Return the vectors of a bundle's folder, and the bytes of the file of their arrays. Raise ProofError if they
    cannot be read, and UserError if a dtype is not known."""
    try:
        return decode((folder / VECTORS).read_bytes(), Vectors), (folder / ARRAYS).read_bytes()
    except OSError as error:
        raise ProofError(f"{folder} has no conformance vectors ({error.strerror}): export the model again") from None
    except UserError as error:
        raise UserError(f"{folder / VECTORS}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise ProofError(f"{folder / VECTORS}: {one_line(error)}: export the model again") from None


def write_vectors(folder: Path, vectors: Vectors, arrays: Arrays) -> tuple[str, ...]:
    """Write both files, one vector a line; return their paths in the bundle."""
    lines = [vector.model_dump_json() for vector in vectors.vectors]
    head = json.dumps(vectors.made_by, sort_keys=True)
    (folder / VECTORS).parent.mkdir(parents=True, exist_ok=True)
    text = f'{{"made_by": {head}, "vectors": [\n' + ",\n".join(lines) + "\n]}\n"
    (folder / VECTORS).write_bytes(text.encode())
    (folder / ARRAYS).write_bytes(arrays.to_bytes())
    return VECTORS, ARRAYS
