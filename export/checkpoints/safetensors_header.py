"""Safetensors on disk: where each tensor lies, and whether a module fits them.

The format: https://huggingface.co/docs/safetensors (eight bytes of header length, a JSON header, then the data).
Only headers are read here. Nothing is ever unpickled.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pocketdiffusion.export.checkpoints.text_files import LFS_POINTER
from pocketdiffusion.export.checkpoints.unexpected import is_allowed
from pocketdiffusion.export.component import FLOATS, TensorRef
from pocketdiffusion.runtime.errors import UserError

LONGEST_HEADER = 100_000_000  # the limit of the format's own reader

# torch's name and the bits of each data type of the format (safetensors/tensor.rs)
_DTYPES = {
    "BOOL": ("bool", 8),
    "F4": ("float4_e2m1fn", 4),
    "F6_E2M3": ("float6_e2m3", 6),
    "F6_E3M2": ("float6_e3m2", 6),
    "U8": ("uint8", 8),
    "I8": ("int8", 8),
    "F8_E5M2": ("float8_e5m2", 8),
    "F8_E4M3": ("float8_e4m3fn", 8),
    "F8_E8M0": ("float8_e8m0fnu", 8),
    "F8_E5M2FNUZ": ("float8_e5m2fnuz", 8),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", 8),
    "I16": ("int16", 16),
    "U16": ("uint16", 16),
    "F16": ("float16", 16),
    "BF16": ("bfloat16", 16),
    "I32": ("int32", 32),
    "U32": ("uint32", 32),
    "F32": ("float32", 32),
    "C64": ("complex64", 64),
    "F64": ("float64", 64),
    "I64": ("int64", 64),
    "U64": ("uint64", 64),
}


def read_header(file: Path) -> dict[str, TensorRef]:
    """Where each tensor of a safetensors file lies. Raises UserError unless the file is whole and well-formed."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        if start == LFS_POINTER[:8]:
            raise UserError(f"{file} is a Git LFS pointer, not the weights: run `git lfs pull` in its folder")
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(size - 8, LONGEST_HEADER):
            raise UserError(f"{file} is truncated or no safetensors file: download it again")
        header = stream.read(length)
    try:
        entries = json.loads(header)
        entries.pop("__metadata__", None)
        for name, entry in entries.items():
            if isinstance(entry["dtype"], str) and entry["dtype"] not in _DTYPES:
                raise UserError(f"{file}: {name} is of the data type {entry['dtype']}, which safetensors does not have")
        refs = {name: _tensor_ref(file, 8 + length, entry) for name, entry in entries.items()}
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


def _tensor_ref(file: Path, base: int, entry: Mapping[str, Any]) -> TensorRef:
    dtype, bits = _DTYPES[entry["dtype"]]
    shape = tuple(entry["shape"])
    begin, end = entry["data_offsets"]
    if not all(isinstance(n, int) and n >= 0 for n in (*shape, begin, end)):
        raise ValueError("shapes and offsets must be natural numbers")
    if 8 * (end - begin) != math.prod(shape) * bits:
        raise ValueError(f"{entry['dtype']}{list(shape)} does not take {end - begin} bytes")
    return TensorRef(file, base + begin, end - begin, dtype, shape)


def bind(
    wanted: Mapping[str, tuple[int, ...]],
    stored: Mapping[str, TensorRef],
    where: str,
    allow_unexpected: Sequence[str] = (),
) -> dict[str, TensorRef]:
    """The place on disk of every tensor that a module wants, in the module's order.

    Raises UserError, listing the names, where one is missing, misshapen, or no float, and where one is left over that
    is neither known to be harmless nor matches a pattern of `allow_unexpected`.
    """
    left = [name for name in stored if name not in wanted]
    unexpected = [name for name in left if not is_allowed(name, where, allow_unexpected)]
    complaints = [
        _list("missing", [name for name in wanted if name not in stored]),
        _list("unexpected", unexpected),
        _list(
            "misshapen",
            [
                f"{name} is {list(stored[name].shape)} and should be {list(shape)}"
                for name, shape in wanted.items()
                if name in stored and stored[name].shape != shape
            ],
        ),
        _list(
            "no float",
            [
                f"{name} is {ref.dtype} in {ref.file.parent.name}/{ref.file.name}"
                for name, ref in stored.items()
                if name in wanted and ref.dtype not in FLOATS
            ],
        ),
    ]
    if any(complaints):
        told = "; ".join(filter(None, complaints))
        way_out = "; what nothing uses is passed over by --allow-unexpected PATTERN" if unexpected else ""
        raise UserError(f"{where}: the weights do not fit the configuration; {told}{way_out}")
    return {name: stored[name] for name in wanted}


def _list(what: str, names: list[str], limit: int = 10) -> str:
    if not names:
        return ""
    more = f", and {len(names) - limit} more" if len(names) > limit else ""
    return f"{len(names)} {what}: {', '.join(names[:limit])}{more}"


def rename(stored: Mapping[str, TensorRef], names: Mapping[str, str], where: str) -> dict[str, TensorRef]:
    """The same tensors under new names; a name that `names` lacks stays. Raises UserError where two become one."""
    twice = [name for name, count in Counter(names.get(name, name) for name in stored).items() if count > 1]
    if twice:
        raise UserError(f"{where}: {_list('given under an old and a new name', sorted(twice))}")
    return {names.get(name, name): ref for name, ref in stored.items()}


def without_kernel(ref: TensorRef) -> TensorRef:
    """A linear layer's weight that is stored as that of a 1x1 convolution, as [out, in]. The bytes are the same."""
    return replace(ref, shape=ref.shape[:2]) if len(ref.shape) == 4 and ref.shape[2:] == (1, 1) else ref
