"""Arrays in files of their own: little-endian, C order, nothing else."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.record import ArrayRef


def write_array(folder: Path, path: str, array: NDArray[Any]) -> ArrayRef:
    """Write `array` to `folder / path`, little-endian, in C order. Raise ValueError if ArrayRef does not have its
    dtype."""
    ref = ArrayRef.model_validate({"path": path, "dtype": array.dtype.name, "shape": array.shape})
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return ref


def read_array(folder: Path, ref: ArrayRef) -> NDArray[Any]:
    """Return the array that `write_array` wrote. Raise ProofError if the file does not have the size of the shape."""
    raw = (folder / ref.path).read_bytes()
    _check_size(folder, ref, len(raw))
    dtype = np.dtype(ref.dtype)
    return np.frombuffer(raw, dtype.newbyteorder("<")).reshape(ref.shape).astype(dtype)


def map_array(folder: Path, ref: ArrayRef) -> NDArray[Any]:
    """Return the array that `write_array` wrote, read-only, as mapped pages of the file. Raise ProofError as
    `read_array` does."""
    _check_size(folder, ref, (folder / ref.path).stat().st_size)
    stored = np.dtype(ref.dtype).newbyteorder("<")
    mapped = np.asarray(np.memmap(folder / ref.path, stored, "r")).reshape(ref.shape)
    return mapped if mapped.dtype.isnative else mapped.astype(ref.dtype)


def _check_size(folder: Path, ref: ArrayRef, size: int) -> None:
    if size != ref.nbytes:
        raise ProofError(
            f"{folder / ref.path} is corrupt: {size} bytes, and {ref.dtype}{list(ref.shape)} has {ref.nbytes}; "
            "export or copy the bundle again"
        )
