"""A diffusers folder, as `save_pretrained` writes it: its configurations, and the places of its weights."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import transformers

from pocketdiffusion.export.arguments import defaults
from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint, OpenOptions
from pocketdiffusion.export.checkpoints.config_types import check_config
from pocketdiffusion.export.checkpoints.hub_cache import describe_unfinished
from pocketdiffusion.export.checkpoints.model_card import read_licence
from pocketdiffusion.export.checkpoints.safetensors_header import read_header
from pocketdiffusion.export.checkpoints.tensor import LazyTensor
from pocketdiffusion.export.checkpoints.text_files import IncompleteError, read_json
from pocketdiffusion.export.checkpoints.tokenizer_files import check_tokenizer
from pocketdiffusion.export.checkpoints.weight_files import PICKLED, WeightFiles, choose_weights
from pocketdiffusion.runtime.errors import UserError

ORDER = 20
LICENCE_FILES = ("LICENSE", "LICENCE", "NOTICE")  # the beginnings of their names, in capitals


@dataclass(frozen=True)
class FolderPipeline:
    """diffusers' own loader on a folder. `variant`, such as "fp16", is the argument with which it reads the chosen
    files, None for the full weights."""

    folder: Path
    variant: str | None

    def __call__(self, pipeline_class: Any, **options: Any) -> Any:
        """Return the pipeline, as described at checkpoint.OpenPipeline."""
        return pipeline_class.from_pretrained(
            self.folder, variant=self.variant, use_safetensors=True, local_files_only=True, **options
        )


def open(name: str, options: OpenOptions) -> Checkpoint | None:
    """Return the checkpoint in the folder `name`, None if there is no such folder."""
    folder = Path(name)
    if not folder.is_dir():
        return None
    if options.revision is not None:
        raise UserError(f"a revision can be given for hub ids only, and {name} is a folder")
    try:
        if not (folder / "model_index.json").is_file():
            raise IncompleteError(
                f"{name} is not a diffusers checkpoint: it has no model_index.json; give a folder that "
                "`save_pretrained` wrote"
            )
        return read_folder(folder, folder.resolve().name, None, options)
    except IncompleteError as error:
        raise describe_unfinished(folder, error) from None


def read_folder(folder: Path, title: str, revision: str | None, options: OpenOptions) -> Checkpoint:
    """Return the checkpoint in `folder`, which has a model_index.json, under the name `title`.

    Raise UserError if its family is not supported, if it is pickled, or if a file is wrong; IncompleteError if a file
    is missing.
    """
    model_index = read_json(folder / "model_index.json")
    modules, tokenizers = options.find_parts(title, model_index)
    parts = (*modules, *tokenizers, "scheduler")
    for part in parts:
        if not (folder / part).is_dir():
            raise IncompleteError(f"{folder} is incomplete: model_index.json names {part}, and there is no such folder")
    for tokenizer in tokenizers:
        check_tokenizer(folder / tokenizer, model_index[tokenizer][1])
    chosen = _choose_all(folder, title, {part: library for part, (library, _) in modules.items()})
    variants = {part: weights.variant for part, weights in chosen.items() if weights.variant is not None}
    skipped = _skipped(folder, parts, {part: weights.files for part, weights in chosen.items()})
    if skipped:
        options.progress(f"{title}: files that an export does not use are ignored: {', '.join(skipped)}")
    if variants:
        read = ", ".join(map(" ".join, variants.items()))
        options.progress(f"{title} has no full weights, so a variant is read: {read}")
    return Checkpoint(
        name=title,
        revision=revision,
        model_index=model_index,
        configs={part: _config(folder / part / "config.json", *entry) for part, entry in modules.items()},
        tensors={part: _tensors([folder / part / name for name in each.files]) for part, each in chosen.items()},
        scheduler=_scheduler(folder / "scheduler/scheduler_config.json", model_index["scheduler"][1]),
        tokenizers={part: folder / part for part in tokenizers},
        licence=read_licence(folder),
        licence_files=_licence_files(folder),
        weight_files={f"{part}/{name}": folder / part / name for part, each in chosen.items() for name in each.files},
        open_pipeline=FolderPipeline(folder, max(variants.values(), default=None)),
        allow_unexpected=options.allow_unexpected,
    )


def _choose_all(folder: Path, title: str, libraries: Mapping[str, str]) -> dict[str, WeightFiles]:
    """Return the weight files of each component, all in one variant or all in full. Raise UserError if components have
    only different variants."""
    chosen = {part: _choose(folder / part, library) for part, library in libraries.items()}
    variants = {weights.variant for weights in chosen.values() if weights.variant is not None}
    if not variants:
        return chosen
    if len(variants) > 1:
        raise UserError(
            f"{title} has only parts in different variants, {' and '.join(sorted(variants))}: save it in one variant"
        )
    (variant,) = variants
    return {part: _choose(folder / part, library, variant) for part, library in libraries.items()}


def _choose(folder: Path, library: str, variant: str | None = None) -> WeightFiles:
    """Return the weight files of a component, in `variant` if it has that variant."""
    names = [file.name for file in folder.iterdir() if file.is_file()]
    return choose_weights(folder.name, library, names, lambda name: read_json(folder / name), variant)


def _config(file: Path, library: str, name: str) -> dict[str, Any]:
    """Return a component's configuration, with diffusers' defaults for fields that were added later, such as the VAE's
    scaling factor."""
    config = read_json(file)
    if library == "transformers":
        check_config(file, getattr(transformers, name).config_class, config)
        return config
    model = getattr(diffusers, name)
    check_config(file, model, config)
    return defaults(model) | config


def _scheduler(file: Path, name: str) -> dict[str, Any]:
    """Return the scheduler's settings, checked against the class `name` of diffusers from model_index.json."""
    config = read_json(file)
    model = getattr(diffusers, name, None)
    if isinstance(model, type):
        check_config(file, model, config)
    return config


def _tensors(files: Iterable[Path]) -> dict[str, LazyTensor]:
    tensors: dict[str, LazyTensor] = {}
    for file in files:
        header = read_header(file)
        if twice := tensors.keys() & header.keys():
            raise UserError(f"{file} contains {min(twice)}, which another shard has too: save the model again")
        tensors |= header
    return tensors


def _skipped(folder: Path, parts: Iterable[str], files: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return the names in the folder that are not read: other components and other weight files. Documents are not
    listed."""
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


def _licence_files(folder: Path) -> dict[str, Path]:
    """Return the licence files next to model_index.json, by name."""
    return {
        path.name: path
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name.upper().startswith(LICENCE_FILES)
    }
