"""Safetensors on disk: which files of a component to read, where each tensor lies, and whether a module fits them.

The format: https://huggingface.co/docs/safetensors (eight bytes of header length, a JSON header, then the data).
Only headers are read here. Nothing is ever unpickled.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pocketdiffusion.export.component import TensorRef
from pocketdiffusion.runtime.errors import UserError

PICKLED = (".bin", ".ckpt", ".pt", ".pth")
LONGEST_HEADER = 100_000_000  # the limit of the format's own reader

_DTYPES = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}
_FLOATS = ("float64", "float32", "float16", "bfloat16")
_NAME = re.compile(
    r"(?P<stem>diffusion_pytorch_model|model)(\.(?P<before>[^.-]+))?(-(?P<part>\d{5})-of-(?P<parts>\d{5}))?"
    r"(\.(?P<after>[^.-]+))?\.safetensors"
)


def choose_files(folder: str, names: Iterable[str]) -> tuple[str, ...]:
    """The weight files to read among the file names in a component's folder: one file, or all of its shards.

    The full set is preferred to a variant such as `fp16`, which is preferred to any other variant. Raises UserError,
    naming `folder`, where there is none, where a shard is missing, or where the only weights are pickled.
    """
    groups: dict[tuple[bool, bool, str, bool], dict[str, re.Match[str]]] = {}
    names = sorted(names)
    for name in names:
        if match := _NAME.fullmatch(name):
            variant = match["before"] or match["after"] or ""
            order = (variant != "", variant != "fp16", variant, match["part"] is not None)
            groups.setdefault(order, {})[name] = match
    if not groups:
        pickled = [name for name in names if name.endswith(PICKLED)]
        raise pickle_error(f"{folder}/{pickled[0]}") if pickled else UserError(f"{folder} holds no safetensors file")
    chosen = groups[min(groups)]
    first = next(iter(chosen.values()))
    if first["parts"] is not None:
        missing = set(range(1, int(first["parts"]) + 1)) - {int(match["part"]) for match in chosen.values()}
        if missing:
            raise UserError(
                f"{folder} lacks part {min(missing)} of {int(first['parts'])} of its weights: copy it again"
            )
    return tuple(chosen)


def variant_of(name: str) -> str:
    """The variant that a weight file's name has, such as "fp16", or ""."""
    match = _NAME.fullmatch(name)
    return "" if match is None else match["before"] or match["after"] or ""


def pickle_error(file: str) -> UserError:
    """Why a pickled file is refused, and how to get safetensors of it."""
    load = "from_single_file" if file.endswith(".ckpt") else "from_pretrained"
    return UserError(
        f"{file} is a pickle, which can run any code when it is opened. Where you trust it, convert it once: "
        f"StableDiffusionPipeline.{load}(...).save_pretrained(DIR, safe_serialization=True)"
    )


def read_header(file: Path) -> dict[str, TensorRef]:
    """Where each tensor of a safetensors file lies. Raises UserError unless the file is whole and well-formed."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        if start == b"version ":
            raise UserError(f"{file} is a Git LFS pointer, not the weights: run `git lfs pull` in its folder")
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(size - 8, LONGEST_HEADER):
            raise UserError(f"{file} is truncated or no safetensors file: download it again")
        header = stream.read(length)
    try:
        entries = json.loads(header)
        entries.pop("__metadata__", None)
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
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"the data type {entry['dtype']} is unknown")
    dtype, itemsize = _DTYPES[entry["dtype"]]
    shape = tuple(entry["shape"])
    begin, end = entry["data_offsets"]
    if not all(isinstance(n, int) and n >= 0 for n in (*shape, begin, end)):
        raise ValueError("shapes and offsets must be natural numbers")
    if end - begin != math.prod(shape) * itemsize:
        raise ValueError(f"{entry['dtype']}{list(shape)} does not take {end - begin} bytes")
    return TensorRef(file, base + begin, end - begin, dtype, shape)


def bind(wanted: Mapping[str, tuple[int, ...]], stored: Mapping[str, TensorRef], where: str) -> dict[str, TensorRef]:
    """The place on disk of every tensor that a module wants, in the module's order.

    Raises UserError, listing the names, where one is missing, left over, misshapen, or no float.
    """
    complaints = [
        _list("missing", [name for name in wanted if name not in stored]),
        _list("unexpected", [name for name in stored if name not in wanted]),
        _list(
            "misshapen",
            [
                f"{name} is {list(stored[name].shape)} and should be {list(shape)}"
                for name, shape in wanted.items()
                if name in stored and stored[name].shape != shape
            ],
        ),
        _list("no float", [f"{n} is {r.dtype}" for n, r in stored.items() if n in wanted and r.dtype not in _FLOATS]),
    ]
    if any(complaints):
        raise UserError(f"{where}: the weights do not fit the configuration; {'; '.join(filter(None, complaints))}")
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
