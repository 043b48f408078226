"""The outline of a checkpoint, read without torch: its parts, their configurations, and the shapes of their weights.

For estimates alone. What an export reads is decided by export/checkpoints, which also checks that files are complete.
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
    """`shapes` are those of the weights, by part and by their names in the files; `configs` the config.json of each
    part. A part is a folder that model_index.json names and that holds weights, without safety checkers."""

    name: str
    configs: Mapping[str, Mapping[str, Any]]
    shapes: Mapping[str, Mapping[str, tuple[int, ...]]]


def read_outline(name: str) -> Outline:
    """Return the outline of the checkpoint `name`: a built-in model or a diffusers folder.

    Raises UserError where it is neither, or its files cannot be read: a hub id must be on this disk first.
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
        raise UserError(f"{name} holds no safetensors files: there is nothing to plan with")
    return Outline(folder.name, {part: _read_json(folder / part / "config.json") for part in shapes}, shapes)


def find_folder(name: str) -> Path:
    """Return the folder of a checkpoint on this disk. Raises UserError where there is none."""
    for base in pocketdiffusion.__path__:
        if "/" not in name and (folder := Path(base) / "models" / name) and (folder / "model_index.json").is_file():
            return folder
    if (Path(name) / "model_index.json").is_file():
        return Path(name)
    raise UserError(
        f"{name} is no diffusers folder on this disk, and --plan reads no other checkpoint: download it first, as with "
        "`hf download`, and give its folder"
    )


def read_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a safetensors file, from its header. Raises UserError where it has none."""
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
    """Return the files of one variant, the full weights where they are there: the shapes of all variants are equal."""
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
        raise UserError(f"{file} holds no JSON object")
    return content
