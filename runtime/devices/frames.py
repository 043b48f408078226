"""How the two ends of a pipe exchange arrays: a line of JSON, then the bytes of each array that it names.

It is read on both sides, inside the emulator too: numpy and the standard library only.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Frame = tuple[dict[str, Any], dict[str, NDArray[Any]]]
Read = Callable[[int], bytes]  # exactly that many bytes, or an exception
_LENGTH = 8  # bytes, little-endian: that of the JSON


def pack(facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """One message: `facts` is what JSON can say."""
    table = [[name, array.dtype.name, list(array.shape)] for name, array in arrays.items()]
    head = json.dumps({"facts": dict(facts), "arrays": table}).encode()
    body = [array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes() for array in arrays.values()]
    return b"".join([len(head).to_bytes(_LENGTH, "little"), head, *body])


def unpack(read: Read) -> Frame:
    """The next message. Raises ValueError where it is none."""
    length = int.from_bytes(read(_LENGTH), "little")
    if length > 2**24:
        raise ValueError("a message that is none")
    head = json.loads(read(length))
    arrays = {}
    for name, kind, shape in head["arrays"]:
        dtype = np.dtype(kind).newbyteorder("<")
        raw = read(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
        arrays[name] = np.frombuffer(raw, dtype).reshape(shape).astype(np.dtype(kind))
    return head["facts"], arrays
