"""Constants of an ML program: in the program itself, or in its blob file, which may pack several into a byte.

The blob file (version 2) is a sequence of records aligned to 64 bytes. Each begins with a header: the sentinel
0xDEADBEEF, a code of the data type, the size of the data in bytes and its offset in the file, the latter two of 64
bits.

Source: coremltools, mlmodel/src/MILBlob/Blob/StorageFormat.hpp; numbers of 1, 2, 3, 4 and 6 bits are stored as a
little-endian stream of bits (mlmodel/src/MILBlob/SubByteTypes.hpp).
"""

from dataclasses import dataclass
from math import lcm, prod
from pathlib import Path

import numpy as np

from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.runner import Array

SENTINEL = 0xDEADBEEF
HEADER = np.dtype([("sentinel", "<u4"), ("dtype", "<u4"), ("size", "<u8"), ("offset", "<u8")])

# numpy's dtypes by MIL's names of data types. BOOL is one byte.
DTYPES = {
    "BOOL": np.dtype("?"),
    "FLOAT16": np.dtype("<f2"),
    "FLOAT32": np.dtype("<f4"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
}
PACKED_BITS = {"INT4": 4, "UINT1": 1, "UINT2": 2, "UINT3": 3, "UINT4": 4, "UINT6": 6}


@dataclass(frozen=True)
class TensorType:
    """Data type and shape of a tensor. `dtype` is MIL's name."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def stored(self) -> np.dtype[np.generic]:
        """Return the numpy dtype of such a tensor. Raise ProofError for an unknown data type."""
        if self.dtype in PACKED_BITS:
            return np.dtype(np.int8 if self.dtype.startswith("INT") else np.uint8)
        if self.dtype not in DTYPES:
            raise ProofError(f"the ML program uses the data type {self.dtype}, which this reader does not know")
        return DTYPES[self.dtype]


@dataclass(frozen=True)
class Blob:
    """A constant in a blob file, whose header is at byte `offset`."""

    file: Path
    offset: int
    type: TensorType


def read_blob(blob: Blob) -> Array:
    """Return the constant, read with plain file reads, so that no mapped page counts as memory.

    Raise ProofError if no record begins there, or its size does not match the type.
    """
    header = np.fromfile(blob.file, HEADER, 1, offset=blob.offset)
    if header.size != 1 or header["sentinel"][0] != SENTINEL:
        raise ProofError(f"{blob.file}: no constant begins at byte {blob.offset}: the file is corrupt")
    raw = np.fromfile(blob.file, np.uint8, int(header["size"][0]), offset=int(header["offset"][0]))
    return decode(raw, blob.type, f"{blob.file}, byte {blob.offset}")


def decode(raw: Array, type: TensorType, where: str) -> Array:
    """Return the tensor in the bytes `raw` (uint8), little-endian. Raise ProofError if there are too few or too
    many."""
    count = prod(type.shape)
    bits = PACKED_BITS.get(type.dtype)
    wanted = count * type.stored.itemsize if bits is None else -(-count * bits // 8)
    if raw.size != wanted:
        raise ProofError(f"{where}: {raw.size} bytes, and {type.dtype}{list(type.shape)} has {wanted}")
    flat = raw.view(type.stored) if bits is None else unpack(raw, bits, count)
    if type.dtype == "INT4":
        flat = flat.view(np.int8) - (flat.view(np.int8) & 8) * 2
    return flat.reshape(type.shape)


def unpack(raw: Array, bits: int, count: int) -> Array:
    """Return `count` numbers (uint8) of `bits` bits each, from the little-endian stream of bits in `raw` (uint8)."""
    step = lcm(bits, 8) // 8  # bytes in which numbers end at the last bit: at most 3
    each = step * 8 // bits
    padded = np.zeros(-(-count // each) * step, np.uint8)
    padded[: raw.size] = raw
    rows = padded.reshape(-1, step)
    words = np.zeros(len(rows), np.uint32)
    for byte in range(step):
        words |= rows[:, byte].astype(np.uint32) << np.uint32(8 * byte)
    values = np.empty((len(rows), each), np.uint8)
    for place in range(each):
        values[:, place] = (words >> np.uint32(bits * place)) & np.uint32(2**bits - 1)
    return values.reshape(-1)[:count]
