"""Safetensors on disk: the place of each tensor in its file, and the check that a module fits the tensors.

The format: https://huggingface.co/docs/safetensors (eight bytes of header length, a JSON header, then the data). Only
headers are read here. Nothing is ever unpickled.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pocketdiffusion.export.checkpoints.tensor import FLOATS, LazyTensor, Reshaped, Stored, bits_of
from pocketdiffusion.export.checkpoints.text_files import LFS_POINTER
from pocketdiffusion.export.checkpoints.unexpected import is_allowed
from pocketdiffusion.runtime.errors import UserError

LONGEST_HEADER = 100_000_000  # the limit of the format's own reader

# torch's name of each data type of the format (safetensors/tensor.rs)
_DTYPES = {
    "BOOL": "bool",
    "F4": "float4_e2m1fn",
    "F6_E2M3": "float6_e2m3",
    "F6_E3M2": "float6_e3m2",
    "U8": "uint8",
    "I8": "int8",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "BF16": "bfloat16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "C64": "complex64",
    "F64": "float64",
    "I64": "int64",
    "U64": "uint64",
}


def read_header(file: Path) -> dict[str, Stored]:
    """Return the place of each tensor of a safetensors file, by name. Raise UserError if the file is incomplete or
    malformed."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        if start == LFS_POINTER[:8]:
            raise UserError(f"{file} is a Git LFS pointer, not the weights: run `git lfs pull` in its folder")
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(size - 8, LONGEST_HEADER):
            raise UserError(f"{file} is truncated or not a safetensors file: download it again")
        header = stream.read(length)
    try:
        entries = json.loads(header)
        entries.pop("__metadata__", None)
        for name, entry in entries.items():
            if isinstance(entry["dtype"], str) and entry["dtype"] not in _DTYPES:
                raise UserError(f"{file}: {name} is of the data type {entry['dtype']}, which safetensors does not have")
        refs = {name: _stored(file, 8 + length, entry) for name, entry in entries.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{file} has a corrupt header ({error}): download it again") from None
    end = 8 + length
    for name, ref in sorted(refs.items(), key=lambda item: (item[1].offset, item[1].nbytes)):
        if ref.offset != end:
            raise UserError(f"{file} has a corrupt header (a gap or overlap at {name}): download it again")
        end += ref.nbytes
    if end != size:
        raise UserError(f"{file} should have {end} bytes and has {size}: download it again")
    return refs


def _stored(file: Path, base: int, entry: Mapping[str, Any]) -> Stored:
    dtype = _DTYPES[entry["dtype"]]
    shape = tuple(entry["shape"])
    begin, end = entry["data_offsets"]
    if not all(isinstance(n, int) and n >= 0 for n in (*shape, begin, end)):
        raise ValueError("shapes and offsets must be integers of 0 or more")
    if 8 * (end - begin) != math.prod(shape) * bits_of(dtype):
        raise ValueError(f"{entry['dtype']}{list(shape)} does not have {end - begin} bytes")
    return Stored(file, base + begin, dtype, shape)


def match_tensors(
    shapes: Mapping[str, tuple[int, ...]],
    stored: Mapping[str, LazyTensor],
    where: str,
    allow_unexpected: Sequence[str] = (),
) -> dict[str, LazyTensor]:
    """Return the tensors that a module needs, `shapes`, in the module's order.

    Raise UserError, listing the names, if a tensor is missing, has another shape, or is not floating-point, and if an
    unused one is neither known to be harmless nor matches a pattern of `allow_unexpected`.
    """
    left = [name for name in stored if name not in shapes]
    unexpected = [name for name in left if not is_allowed(name, where, allow_unexpected)]
    complaints = [
        _list("missing", [name for name in shapes if name not in stored]),
        _list("unexpected", unexpected),
        _list(
            "of another shape",
            [
                f"{name} is {list(stored[name].shape)} and should be {list(shape)}"
                for name, shape in shapes.items()
                if name in stored and stored[name].shape != shape
            ],
        ),
        _list(
            "not floating-point",
            [
                f"{name} is {tensor.dtype} in {_files(tensor)}"
                for name, tensor in stored.items()
                if name in shapes and tensor.dtype not in FLOATS
            ],
        ),
    ]
    if any(complaints):
        reasons = "; ".join(filter(None, complaints))
        advice = "; if they are not needed, give --allow-unexpected PATTERN, such as 'extra.*'" if unexpected else ""
        raise UserError(f"{where}: the weights do not fit the configuration; {reasons}{advice}")
    return {name: stored[name] for name in shapes}


def _files(tensor: LazyTensor) -> str:
    return ", ".join(f"{place.file.parent.name}/{place.file.name}" for place in tensor.places)


def _list(what: str, names: list[str], limit: int = 10) -> str:
    if not names:
        return ""
    more = f", and {len(names) - limit} more" if len(names) > limit else ""
    return f"{len(names)} {what}: {', '.join(names[:limit])}{more}"


def rename(stored: Mapping[str, LazyTensor], names: Mapping[str, str], where: str) -> dict[str, LazyTensor]:
    """Return the same tensors under new names; a name that is not in `names` stays. Raise UserError if two names become
    one."""
    twice = [name for name, count in Counter(names.get(name, name) for name in stored).items() if count > 1]
    if twice:
        raise UserError(f"{where}: {_list('stored under an old and a new name', sorted(twice))}: save the model again")
    return {names.get(name, name): tensor for name, tensor in stored.items()}


def without_kernel(tensor: LazyTensor) -> LazyTensor:
    """Return a linear layer's weight as [out, in], also if it is stored as the kernel of a 1x1 convolution."""
    shape = tensor.shape
    return Reshaped(tensor, shape[:2]) if len(shape) == 4 and shape[2:] == (1, 1) else tensor
