"""Messages with arrays between the two ends of a pipe: JSON, then the bytes of each array that it names.

Both ends import this file, also inside the emulator: it needs only numpy and the standard library.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Frame = tuple[dict[str, Any], dict[str, NDArray[Any]]]
Read = Callable[[int], bytes]  # exactly that many bytes, or an exception
_LENGTH = 8  # bytes of the JSON's length, little-endian


def pack(facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the bytes of one message. `facts` has only values that JSON can write."""
    table = [[name, array.dtype.name, list(array.shape)] for name, array in arrays.items()]
    head = json.dumps({"facts": dict(facts), "arrays": table}).encode()
    body = [array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes() for array in arrays.values()]
    return b"".join([len(head).to_bytes(_LENGTH, "little"), head, *body])


def unpack(read: Read) -> Frame:
    """Return the facts and arrays of the next message. Raise ValueError if it is not a message."""
    length = int.from_bytes(read(_LENGTH), "little")
    if length > 2**24:
        raise ValueError("not a message: its length is above 16 MB")
    head = json.loads(read(length))
    arrays = {}
    for name, kind, shape in head["arrays"]:
        dtype = np.dtype(kind).newbyteorder("<")
        raw = read(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
        arrays[name] = np.frombuffer(raw, dtype).reshape(shape).astype(np.dtype(kind))
    return head["facts"], arrays
