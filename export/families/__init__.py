"""Model families: each splits a checkpoint into components.

The folder is the registry: a file here serves the pipeline classes that its `PIPELINES` names, and defines

    PIPELINE                     the class of diffusers that draws the reference
    CLASSES                      the modules of the checkpoint, each with the classes that are supported
    TOKENIZERS                   the parts that are tokenizers
    components(checkpoint, width, height) -> list[Component]    in pixels, None for the model's training size
    program(checkpoint, specs) -> Program    the order of the graphs' calls and their values; `specs` by component
    calls(pipeline)              the pipeline's modules whose calls are recorded: {graph: GraphCall}
    modules(pipeline)            the pipeline's modules that have the weights of each component
    scheduler_config(config)     the scheduler's settings after the corrections that the pipeline class makes

The record `GraphCall` is in parts/graph_call.py. `modules` returns {component: {first part of a weight's name:
module}}. Each component counts its sites by kind (component.py), and a wrong count stops the export.

A family is one file if its tokenizers are CLIP's, its autoencoder is the part "vae" with a `scaling_factor` and without
a shift, its scheduler is one of runtime/sampling/samplers, and its program uses the host values of runtime/program.py.
bundle_writer.py, conformance/__init__.py and checkpoints/tokenizer_files.py rely on that. Anything else changes the
contract with readers, docs/BUNDLE.md, and these files with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from torch import nn

from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.checkpoints.tensor import places_of
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.families.parts.graph_call import GraphCall
from pocketdiffusion.export.families.parts.split import split_calls, split_components, split_modules, split_program
from pocketdiffusion.export.families.parts.tiles import tile_components
from pocketdiffusion.export.tile_size import TileSize
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.program import Program, halved_graphs
from pocketdiffusion.runtime.program_check import check_program
from pocketdiffusion.runtime.progress import Progress
from pocketdiffusion.runtime.sampling.scheduler_settings import PLAIN

_SCHEDULERS, _TOKENIZERS = "diffusers", "transformers"  # the libraries that define them


def find_family(checkpoint: Checkpoint) -> Any:
    """Return the module of this folder that serves the checkpoint's pipeline class. Raise UserError if there is
    none."""
    return _find_family(checkpoint.name, checkpoint.model_index)


def components(
    checkpoint: Checkpoint,
    *,
    width: int | None = None,
    height: int | None = None,
    split_unet: int = 1,
    tiles: TileSize | None = None,
    progress: Progress = lambda line: None,
) -> list[Component]:
    """Return the graphs of a checkpoint, batch 1, for pictures of `width` x `height` pixels, in the order in which they
    run. The UNet is `split_unet` graphs, and the VAE decoder is for `tiles`, or None for complete pictures.

    `progress` receives one line about unused tensors. Raise UserError if the pipeline class belongs to no known family,
    if a configuration requires something that its family does not support, if the size does not fit the model, if the
    weights do not fit the configuration, and if the UNet cannot be split or the decoder not be tiled so.
    """
    family = find_family(checkpoint)
    parts = split_components(checkpoint.name, family.components(checkpoint, width, height), split_unet)
    parts = tile_components(checkpoint.name, parts, tiles)
    drawn = program(checkpoint, parts)
    halved, stages = halved_graphs(drawn), {call.graph: stage.stage for stage in drawn.stages for call in stage.calls}
    parts = [replace(part, stage=stages.get(part.spec.name, ""), halved=part.spec.name in halved) for part in parts]
    used = places_of(tensor for part in parts for tensor in part.weights.values())
    unused = [
        f"{part}.{name}"
        for part, tensors in checkpoint.tensors.items()
        for name, tensor in tensors.items()
        if not places_of([tensor]) <= used
    ]
    if unused:
        more = f", and {len(unused) - 5} more" if len(unused) > 5 else ""
        progress(f"{checkpoint.name} has unused tensors, which are ignored: {', '.join(unused[:5])}{more}")
    return parts


def program(checkpoint: Checkpoint, parts: Sequence[Component]) -> Program:
    """Return the family's program of the checkpoint: the calls of the graphs, in order, with their values. Raise
    UserError if it does not fit the graphs."""
    specs = {part.spec.name: part.spec for part in parts}
    found = split_program(find_family(checkpoint).program(checkpoint, specs), parts)
    check_program(found, specs)
    return found


def calls(checkpoint: Checkpoint, pipeline: Any, parts: Sequence[Component]) -> dict[str, GraphCall]:
    """Return the modules of the checkpoint's pipeline whose calls are recorded, by graph; `parts` are its
    components."""
    family = find_family(checkpoint)
    return split_calls(family.calls(pipeline), family.modules(pipeline), parts)


def modules(
    checkpoint: Checkpoint, pipeline: Any, parts: Sequence[Component]
) -> dict[str, Mapping[str, nn.Module | None]]:
    """Return the modules of the checkpoint's pipeline that have the weights of each of its components `parts`."""
    return split_modules(find_family(checkpoint).modules(pipeline), parts)


def scheduler_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the settings of the scheduler that the checkpoint's pipeline draws with, after the corrections that the
    pipeline class makes. `_class_name` is from model_index.json, and may differ from scheduler_config.json. If another
    sampler replaces the scheduler, settings that no sampler here supports are left out."""
    _, name = checkpoint.model_index["scheduler"]
    config: dict[str, Any] = find_family(checkpoint).scheduler_config({**checkpoint.scheduler, "_class_name": name})
    return config if checkpoint.sampler is None else {key: config[key] for key in config if key not in PLAIN}


def find_parts(title: str, model_index: Mapping[str, Any]) -> tuple[dict[str, tuple[str, str]], tuple[str, ...]]:
    """Return the parts of a checkpoint that are read: (library, class) of each module by its name, and the names of the
    tokenizers.

    A checkpoint may have other parts, which its pipeline class does not use. Raise UserError, naming the model `title`,
    if the class of the pipeline or of a part is not supported.
    """
    family = _find_family(title, model_index)
    modules = {part: _entry(title, model_index, part, classes) for part, classes in family.CLASSES.items()}
    for part, library in (("scheduler", _SCHEDULERS), *((name, _TOKENIZERS) for name in family.TOKENIZERS)):
        entry = model_index.get(part)
        if not isinstance(entry, list) or len(entry) != 2 or not all(isinstance(word, str) for word in entry):
            raise UserError(f"{title} is incomplete: model_index.json has no entry {part}")
        _check_library(title, part, entry[0], entry[1], library)
    return modules, tuple(family.TOKENIZERS)


def _find_family(title: str, model_index: Mapping[str, Any]) -> Any:
    name = model_index.get("_class_name")
    families = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__) if not module.ispkg]
    known = sorted(pipeline for family in families for pipeline in family.PIPELINES)
    if isinstance(name, list | dict):
        raise UserError(
            f"{title}: _class_name in model_index.json is {name!r}, a pipeline with code of its own, which is never "
            f"run: if a pipeline of diffusers draws the same, name that; supported: {', '.join(known)}"
        )
    for family in families:
        if name in family.PIPELINES:
            return family
    raise UserError(f"{title} is a {name}, which cannot be exported; supported: {', '.join(known)}")


def _entry(title: str, model_index: Mapping[str, Any], part: str, classes: tuple[str, ...]) -> tuple[str, str]:
    """Return the library and class of a module. Raise UserError if the class is not supported."""
    entry = model_index.get(part)
    library, found = entry if isinstance(entry, list) and len(entry) == 2 else (None, None)
    if found not in classes:
        raise UserError(f"{title}: {part} is a {found}, which is not supported; {classes[0]} is")
    expected = "diffusers" if hasattr(import_module("diffusers"), found) else "transformers"
    _check_library(title, part, library, found, expected)
    return expected, found


def _check_library(title: str, part: str, library: Any, found: str, expected: str) -> None:
    """Check that a part's class comes from the library that has it, `expected`. Raise UserError if it does not."""
    if library in ("diffusers", "transformers") and library != expected:
        raise UserError(
            f"{title}: model_index.json loads {part}'s {found} from {library}, which does not have it: write {expected}"
        )
    if library != expected:
        raise UserError(
            f"{title}: model_index.json loads {part}'s {found} from {library!r}, code of its own, which is never run: "
            f"if {expected} has the same class, write {expected}"
        )
