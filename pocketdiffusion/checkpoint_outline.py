"""Read the outline of a checkpoint without torch: its parts, their configurations, and the shapes of their weights.

It is used for estimates only. An export reads checkpoints by export/checkpoints, which also checks that files are
complete.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pocketdiffusion
from pocketdiffusion.runtime.errors import UserError

LONGEST_HEADER = 100_000_000  # bytes: the limit of the safetensors format's own reader
_SHARD = re.compile(r"-\d+-of-\d+$")


@dataclass(frozen=True)
class Outline:
    """The outline of a checkpoint. `configs`: config.json by part. `shapes`: shapes of the weights, by part and by name
    in the files. A part is a folder with weights that model_index.json names; safety checkers are left out."""

    name: str
    configs: Mapping[str, Mapping[str, Any]]
    shapes: Mapping[str, Mapping[str, tuple[int, ...]]]


def read_outline(name: str) -> Outline:
    """Return the outline of the checkpoint `name`: a built-in model or a diffusers folder.

    Raise UserError if it is neither, or its files cannot be read. A Hugging Face model must be downloaded first.
    """
    folder = find_folder(name)
    index = _read_json(folder / "model_index.json")
    parts = [part for part, entry in sorted(index.items()) if _is_model(part, entry)]
    files = {part: _weight_files(folder / part) for part in parts}
    shapes = {
        part: {tensor: shape for file in found for tensor, shape in read_shapes(file).items()}
        for part, found in files.items()
        if found
    }
    if not shapes:
        raise UserError(
            f"{name} has no .safetensors files, which --plan reads the sizes from: convert the checkpoint with "
            "save_pretrained(safe_serialization=True)"
        )
    return Outline(folder.name, {part: _read_json(folder / part / "config.json") for part in shapes}, shapes)


def find_folder(name: str) -> Path:
    """Return the folder of a checkpoint on this disk. Raise UserError if there is none."""
    for base in pocketdiffusion.__path__:
        if "/" not in name and (folder := Path(base) / "models" / name) and (folder / "model_index.json").is_file():
            return folder
    if (Path(name) / "model_index.json").is_file():
        return Path(name)
    raise UserError(
        f"{name} is not a folder in diffusers' format, and --plan reads no other checkpoints: download it first, for "
        "example with `hf download`, and give its folder"
    )


def read_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Return {name: shape} of the tensors of a safetensors file, from its header. Raise UserError if it has no
    header."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            entries: dict[str, Any] = json.loads(stream.read(length) if length <= LONGEST_HEADER else b"")
        entries.pop("__metadata__", None)
        return {name: tuple(int(size) for size in entry["shape"]) for name, entry in entries.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"cannot read the header of {file}: {error}") from None


def _is_model(part: str, entry: Any) -> bool:
    libraries = ("diffusers", "transformers")
    return isinstance(entry, list) and len(entry) == 2 and entry[0] in libraries and "safety" not in part


def _weight_files(folder: Path) -> list[Path]:
    """Return the files of one variant, the one without a suffix if it exists. The shapes of all variants are equal."""
    variants: dict[str, list[Path]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        variants.setdefault(_SHARD.sub("", file.stem), []).append(file)
    return variants[min(variants, key=len)] if variants else []


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{file} is not a JSON object: download it again or correct it")
    return content
