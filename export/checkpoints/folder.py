"""Open a checkpoint: what a diffusers folder says about itself, and where its weights lie. No weight is loaded.

checkpoint = open_checkpoint("emoji")                                  the built-in model
checkpoint = open_checkpoint("path/to/folder")                         what `save_pretrained` writes
checkpoint = open_checkpoint("some-user/some-model", revision="main")  a hub id, from the hub or its cache
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import diffusers
import transformers

import pocketdiffusion
from pocketdiffusion.export.arguments import defaults
from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.checkpoints.config_types import check_config
from pocketdiffusion.export.checkpoints.hub import fetch
from pocketdiffusion.export.checkpoints.model_card import read_licence
from pocketdiffusion.export.checkpoints.safetensors_header import read_header
from pocketdiffusion.export.checkpoints.text_files import NotWholeError, read_json
from pocketdiffusion.export.checkpoints.tokenizer_files import check_tokenizer
from pocketdiffusion.export.checkpoints.weight_files import PICKLED, WeightFiles, choose_weights, pickle_error
from pocketdiffusion.export.component import TensorRef
from pocketdiffusion.export.families import find_parts
from pocketdiffusion.runtime.errors import UserError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def open_checkpoint(
    name: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    allow_unexpected: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> Checkpoint:
    """Read a checkpoint's configurations and the headers of its weights.

    `name` is "emoji", a diffusers folder, or a hub id; `revision` and `token` are for hub ids. `allow_unexpected` are
    shell patterns of tensors that may be left over. `say` is told in one line what the folder holds besides. Raises
    UserError where it is no checkpoint, is not whole, is pickled, or is of no family that is served.
    """
    folder, source = _locate(name, revision, token)
    title = folder.resolve().name if source is Source.FOLDER else name
    try:
        return _open(folder, title, source, tuple(allow_unexpected), say)
    except NotWholeError as error:
        if source is Source.CACHE:
            raise UserError(
                f"the copy of {name} in the hub's cache is only a part of it, its download was interrupted ({error}): "
                "run the same command again online, which downloads the rest"
            ) from None
        if source is Source.HUB:
            raise UserError(f"{name} on the hub is not whole: {error}") from None
        raise


def _open(
    folder: Path, title: str, source: "Source", allow_unexpected: tuple[str, ...], say: Callable[[str], None]
) -> Checkpoint:
    model_index = read_json(folder / "model_index.json")
    modules, tokenizers = find_parts(title, model_index)
    parts = (*modules, *tokenizers, "scheduler")
    for part in parts:
        if not (folder / part).is_dir():
            raise NotWholeError(f"{folder} is not whole: model_index.json names {part}, and there is no such folder")
    for tokenizer in tokenizers:
        check_tokenizer(folder / tokenizer, model_index[tokenizer][1])
    chosen = {part: _choose(folder / part, library) for part, (library, _) in modules.items()}
    if wanted := {weights.variant for weights in chosen.values() if weights.variant is not None}:
        if len(wanted) > 1:
            raise UserError(f"{title} has parts in the variants {' and '.join(sorted(wanted))} alone: save it in one")
        (variant,) = wanted
        chosen = {part: _choose(folder / part, library, variant) for part, (library, _) in modules.items()}
    files = {part: weights.files for part, weights in chosen.items()}
    variants = {part: weights.variant for part, weights in chosen.items() if weights.variant is not None}
    skipped = _skipped(folder, parts, files)
    if skipped:
        say(f"{title} also holds what an export does not use, skipped: {', '.join(skipped)}")
    if variants:
        say(f"{title} is read in its variant, for want of full weights: {', '.join(map(' '.join, variants.items()))}")
    return Checkpoint(
        name=title,
        folder=folder,
        revision=folder.name if source in (Source.HUB, Source.CACHE) else None,
        model_index=model_index,
        configs={part: _config(folder / part / "config.json", *entry) for part, entry in modules.items()},
        tensors={part: _tensors([folder / part / name for name in names]) for part, names in files.items()},
        scheduler=_scheduler(folder / "scheduler/scheduler_config.json", model_index["scheduler"][1]),
        tokenizers={part: folder / part for part in tokenizers},
        licence=read_licence(folder),
        files=files,
        variants=variants,
        allow_unexpected=allow_unexpected,
    )


class Source(Enum):
    """Where a checkpoint was found: on this disk, on the hub, or in the hub's cache alone, since no hub answered."""

    BUILT_IN = "built in"
    FOLDER = "folder"
    HUB = "hub"
    CACHE = "cache"


def _locate(name: str, revision: str | None, token: str | None) -> tuple[Path, Source]:
    """The folder, and where it was found."""
    path, source = Path(name), Source.FOLDER
    if name == "emoji":
        path, source = _built_in(name), Source.BUILT_IN
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
        folder, whole = fetch(name, revision, token)
        return folder, Source.HUB if whole else Source.CACHE
    if not path.is_dir():
        raise UserError(f"there is no folder {name}, and it is no hub id (user/model) either")
    if revision is not None:
        raise UserError(f"a revision can be asked of hub ids only, and {name} is a folder")
    if not (path / "model_index.json").is_file():
        raise UserError(f"{name} is no checkpoint: it has no model_index.json, which every diffusers folder has")
    return path, source


def _built_in(name: str) -> Path:
    for base in pocketdiffusion.__path__:  # the same in a checkout, an editable install and a wheel
        if (folder := Path(base) / "models" / name).is_dir():
            return folder
    raise UserError(f"the built-in model {name} is missing: install pocketdiffusion again")


def _choose(folder: Path, library: str, variant: str | None = None) -> WeightFiles:
    """The weight files of a component, of `variant` where it has such."""
    names = [file.name for file in folder.iterdir() if file.is_file()]
    return choose_weights(folder.name, library, names, lambda name: read_json(folder / name), variant)


def _config(file: Path, library: str, name: str) -> dict[str, Any]:
    """A component's configuration. Old files leave out what diffusers added later, such as the VAE's scaling factor."""
    config = read_json(file)
    if library == "transformers":
        check_config(file, getattr(transformers, name).config_class, config)
        return config
    model = getattr(diffusers, name)
    check_config(file, model, config)
    return defaults(model) | config


def _scheduler(file: Path, name: str) -> dict[str, Any]:
    """The settings of the scheduler's class in diffusers, which is that of model_index.json."""
    config = read_json(file)
    model = getattr(diffusers, name, None)
    if isinstance(model, type):
        check_config(file, model, config)
    return config


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
