"""Checkpoint sources: each opens the models of one kind of place. No weight is loaded.

    open_from_source("emoji", options)              the built-in model
    open_from_source("path/to/folder", options)     what `save_pretrained` writes
    open_from_source("some-user/some-model", ...)   a hub id, from the hub or its cache

Which parts of a checkpoint to read is said by `options.find_parts`: no source knows a model family.

The folder is the registry: a file here that defines these two names is a source (the other files are parts of sources):

    ORDER                               sources are tried in ascending order: built-in 10, folder 20, hub 30
    open(name, options) -> Checkpoint   open the model `name`; None if it belongs to another source. Raises UserError
                                        if it belongs to this source and cannot be opened

A source may be asked for any name that pocketdiffusion/choices.py lets through. Tensors have the names of diffusers'
and transformers' modules (`safetensors_header.rename`). `export --plan` reads folders only, without these sources
(pocketdiffusion/checkpoint_outline.py).
"""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint, OpenOptions
from pocketdiffusion.export.checkpoints.weight_files import PICKLED, pickle_error
from pocketdiffusion.runtime.errors import UserError


def open_from_source(name: str, options: OpenOptions) -> Checkpoint:
    """Return the checkpoint `name`, opened by the first source that has it. Raise UserError if none has it, or if its
    source cannot open it."""
    for source in sources():
        found: Checkpoint | None = source.open(name, options)
        if found is not None:
            return found
    raise _refusal(name)


def sources() -> list[Any]:
    """Return the modules of this folder that are sources, in the order in which they are tried."""
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    return sorted((module for module in modules if hasattr(module, "ORDER")), key=lambda module: int(module.ORDER))


def _refusal(name: str) -> UserError:
    """Return the error for a `name` that no source has."""
    path = Path(name)
    if path.suffix in (*PICKLED, ".safetensors") and not path.is_file():
        return UserError(f"there is no file {name}: give a folder, a Hugging Face id (user/model), or emoji")
    if path.suffix in PICKLED:
        return pickle_error(name)
    if path.is_file():
        return UserError(
            f"{name} is a single file, and only diffusers folders and hub ids can be opened: convert it to a folder "
            f"with StableDiffusionPipeline.from_single_file(...).save_pretrained(DIR)"
        )
    return UserError(f"there is no folder {name}, and it is not a Hugging Face id (user/model) either")
