"""Open a checkpoint: what a diffusers folder says about itself, and where its weights lie. No weight is loaded.

checkpoint = open_checkpoint("emoji")                                  the built-in model
checkpoint = open_checkpoint("path/to/folder")                         what `save_pretrained` writes
checkpoint = open_checkpoint("some-user/some-model", revision="main")  a hub id, from the hub or its cache
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers

import pocketdiffusion
from pocketdiffusion.export.arguments import defaults
from pocketdiffusion.export.checkpoints.hub import SKIPPED, fetch
from pocketdiffusion.export.checkpoints.safetensors_header import PICKLED, choose_files, pickle_error, read_header
from pocketdiffusion.export.checkpoints.tokenizer_files import check_tokenizer
from pocketdiffusion.export.component import TensorRef
from pocketdiffusion.runtime.errors import UserError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Checkpoint:
    """`configs` and `tensors` are by component name: "unet", "vae", "text_encoder", ...

    A configuration is that of the file, with diffusers' defaults where it is silent; tensors have the file's names.
    `name` is the name of the folder or the hub id, without any path. `revision` is the hub's commit. `fingerprint` is
    the sha256 over the weight files' names and sha256 sums.
    """

    name: str
    folder: Path
    revision: str | None
    model_index: Mapping[str, Any]
    configs: Mapping[str, Mapping[str, Any]]
    tensors: Mapping[str, Mapping[str, TensorRef]]
    scheduler: Mapping[str, Any]
    tokenizers: Mapping[str, Path]
    licence: str
    fingerprint: str


def open_checkpoint(
    name: str, *, revision: str | None = None, token: str | None = None, say: Callable[[str], None] = print
) -> Checkpoint:
    """Read a checkpoint's configurations and the headers of its weights.

    `name` is "emoji", a diffusers folder, or a hub id; `revision` and `token` are for hub ids. `say` is told in one
    line what the folder holds besides, and in another when there is much to read. Raises UserError where it is no
    checkpoint, is not whole, or is pickled.
    """
    folder, from_hub = _locate(name, revision, token)
    title = name if from_hub or name == "emoji" else folder.resolve().name
    model_index = _read_json(folder / "model_index.json")
    parts = {
        part: entry
        for part, entry in model_index.items()
        if part.isidentifier() and part not in SKIPPED and isinstance(entry, list)
        if len(entry) == 2 and all(isinstance(word, str) for word in entry)
    }
    for part in parts:
        if not (folder / part).is_dir():
            raise UserError(f"{folder} is not whole: model_index.json names {part}, and there is no such folder")
    tokenizers = {part: folder / part for part in parts if part.startswith("tokenizer")}
    for needed in ("scheduler", "tokenizer"):
        if needed not in parts:
            raise UserError(f"{folder} is not whole: model_index.json names no {needed}")
    for part, tokenizer in tokenizers.items():
        check_tokenizer(tokenizer, parts[part][1])
    modules = [part for part in parts if part != "scheduler" and part not in tokenizers]
    files = {part: choose_files(part, [f.name for f in (folder / part).iterdir()]) for part in modules}
    skipped = _skipped(folder, parts, files)
    if skipped:
        say(f"{title} also holds what an export does not use, skipped: {', '.join(skipped)}")
    tensors = {part: _tensors([folder / part / name for name in names]) for part, names in files.items()}
    total = sum(ref.nbytes for part in tensors.values() for ref in part.values())
    if total > 1e9:
        say(f"{title}: reading {total / 1e9:.1f} GB for the fingerprint")
    return Checkpoint(
        name=title,
        folder=folder,
        revision=folder.name if from_hub else None,
        model_index=model_index,
        configs={part: _config(folder / part / "config.json", *parts[part]) for part in modules},
        tensors=tensors,
        scheduler=_read_json(folder / "scheduler/scheduler_config.json"),
        tokenizers=tokenizers,
        licence=_licence(folder),
        fingerprint=_fingerprint(folder, [f"{part}/{name}" for part, names in files.items() for name in names]),
    )


def _locate(name: str, revision: str | None, token: str | None) -> tuple[Path, bool]:
    """The folder, and whether it came from the hub."""
    path = Path(name)
    if name == "emoji":
        path = _built_in(name)
    elif path.is_file() or path.suffix in (*PICKLED, ".safetensors"):
        if not path.is_file():
            raise UserError(f"there is no file {name}")
        if path.suffix in PICKLED:
            raise pickle_error(name)
        raise UserError(
            f"{name} is a single file, and only diffusers folders and hub ids can be opened: make a folder of it with "
            f"StableDiffusionPipeline.from_single_file(...).save_pretrained(DIR)"
        )
    elif not path.exists() and _HUB_ID.fullmatch(name):
        return fetch(name, revision, token), True
    if not path.is_dir():
        raise UserError(f"there is no folder {name}, and it is no hub id (user/model) either")
    if revision is not None:
        raise UserError(f"a revision can be asked of hub ids only, and {name} is a folder")
    if not (path / "model_index.json").is_file():
        raise UserError(f"{name} is no checkpoint: it has no model_index.json, which every diffusers folder has")
    return path, False


def _built_in(name: str) -> Path:
    for base in pocketdiffusion.__path__:  # the same in a checkout, an editable install and a wheel
        if (folder := Path(base) / "models" / name).is_dir():
            return folder
    raise UserError(f"the built-in model {name} is missing: install pocketdiffusion again")


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise UserError(f"{file} is missing: the checkpoint is not whole")
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise UserError(f"{file} is no valid JSON ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{file} holds no JSON object")
    return content


def _config(file: Path, library: str, name: str) -> dict[str, Any]:
    """A component's configuration. Old files leave out what diffusers added later, such as the VAE's scaling factor."""
    model = getattr(diffusers, name, None) if library == "diffusers" else None
    return (defaults(model) if isinstance(model, type) else {}) | _read_json(file)


def _tensors(files: Iterable[Path]) -> dict[str, TensorRef]:
    refs: dict[str, TensorRef] = {}
    for file in files:
        header = read_header(file)
        if twice := refs.keys() & header.keys():
            raise UserError(f"{file} repeats {min(twice)} of another part")
        refs |= header
    return refs


def _skipped(folder: Path, parts: Iterable[str], files: Mapping[str, tuple[str, ...]]) -> list[str]:
    """What lies in the folder and is not read: other components, other weights. Documents are not worth a word."""
    known = {*parts, "model_index.json", "README.md"}
    top = [p.name for p in folder.iterdir() if p.name not in known and not p.name.startswith((".", "__", "LICENSE"))]
    top = [name for name in top if (folder / name).is_dir() or Path(name).suffix in (*PICKLED, ".safetensors")]
    unread = [
        f"{part}/{p.name}"
        for part, names in files.items()
        for p in (folder / part).iterdir()
        if p.name not in (*names, "config.json") and not p.name.endswith(".index.json")
    ]
    return sorted(top) + sorted(unread)


def _licence(folder: Path) -> str:
    """`license` of the model card's front matter, else the name of a licence file, else "unknown"."""
    card = folder / "README.md"
    lines = card.read_text(encoding="utf-8", errors="replace").splitlines() if card.is_file() else []
    front = "\n".join(lines[1 : lines.index("---", 1)]) if lines[:1] == ["---"] and "---" in lines[1:] else ""
    for key in ("license_name", "license"):  # the first names what the second calls "other"
        if match := re.search(rf"^{key}:\s*(?:-\s*)?[\"']?([^\s\"'#]+)", front, re.MULTILINE):
            return match[1]
    files = sorted(p.name for p in folder.iterdir() if p.name.upper().startswith("LICENSE"))
    return f"see {files[0]}" if files else "unknown"


def _fingerprint(folder: Path, files: Iterable[str]) -> str:
    total = hashlib.sha256()
    for name in sorted(files):
        with (folder / name).open("rb") as stream:
            total.update(f"{name} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()
