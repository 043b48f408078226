"""Model families: each splits a checkpoint into components.

The folder is the registry: a file here serves the pipeline classes that its `PIPELINES` names, with

    PIPELINE                     the class of diffusers that draws the reference
    CLASSES                      the modules it is made of, each with the classes that are served
    TOKENIZERS                   the parts that hold a vocabulary
    components(checkpoint, width, height) -> list[Component]    in pixels, None for the size that it was trained at
    program(checkpoint, specs) -> Program    which graph is called when, with what; `specs` are the components'
    calls(pipeline)              where the pipeline calls each graph: {graph: GraphCall}
    modules(pipeline)            which of its modules have the weights of each component
    scheduler_config(config)     the scheduler's settings after that class has mended them
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.checkpoints.tensor import places_of
from pocketdiffusion.export.component import Component
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.program import Program, halved_graphs
from pocketdiffusion.runtime.program_check import check_program
from pocketdiffusion.runtime.sampling.scheduler_settings import PLAIN

_SCHEDULERS, _TOKENIZERS = "diffusers", "transformers"  # the libraries that they come from


def find_family(checkpoint: Checkpoint) -> Any:
    """The module here that serves the checkpoint's pipeline class. Raises UserError where there is none."""
    return _find_family(checkpoint.name, checkpoint.model_index)


def components(
    checkpoint: Checkpoint,
    *,
    width: int | None = None,
    height: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Component]:
    """The graphs of a checkpoint, batch 1, for pictures of `width` x `height` pixels, in the order they run in.

    `say` is told in one line which tensors nothing uses. Raises UserError where the pipeline class is of no known
    family, where a configuration asks for what its family does not do, where the size does not fit the model, and where
    the weights do not fit the configuration.
    """
    family = find_family(checkpoint)
    parts: list[Component] = family.components(checkpoint, width, height)
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
        say(f"{checkpoint.name} holds tensors that nothing uses, passed over: {', '.join(unused[:5])}{more}")
    return parts


def program(checkpoint: Checkpoint, parts: Sequence[Component]) -> Program:
    """Which graph of the checkpoint is called when, with what, as its family says. Raises UserError where that does not
    fit the graphs."""
    specs = {part.spec.name: part.spec for part in parts}
    found: Program = find_family(checkpoint).program(checkpoint, specs)
    check_program(found, specs)
    return found


def scheduler_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The settings of the scheduler that the checkpoint's pipeline draws with: of the class that model_index.json
    names, which need not be that of scheduler_config.json, as the pipeline mends them. Where another sampler takes its
    place, without the settings that change the arithmetic in ways that no sampler here knows."""
    _, name = checkpoint.model_index["scheduler"]
    mended: dict[str, Any] = find_family(checkpoint).scheduler_config({**checkpoint.scheduler, "_class_name": name})
    return mended if checkpoint.sampler is None else {key: mended[key] for key in mended if key not in PLAIN}


def find_parts(title: str, model_index: Mapping[str, Any]) -> tuple[dict[str, tuple[str, str]], tuple[str, ...]]:
    """What is read of a checkpoint: the library and class of each module by its name, and the names of the tokenizers.

    A checkpoint may have other parts, which its pipeline class does not use. Raises UserError, in words about the
    model `title`, where the pipeline or a part is of a class that is not served.
    """
    family = _find_family(title, model_index)
    modules = {part: _entry(title, model_index, part, classes) for part, classes in family.CLASSES.items()}
    for part, library in (("scheduler", _SCHEDULERS), *((name, _TOKENIZERS) for name in family.TOKENIZERS)):
        entry = model_index.get(part)
        if not isinstance(entry, list) or len(entry) != 2 or not all(isinstance(word, str) for word in entry):
            raise UserError(f"{title} is not whole: model_index.json names no {part}")
        _check_library(title, part, entry[0], entry[1], library)
    return modules, tuple(family.TOKENIZERS)


def _find_family(title: str, model_index: Mapping[str, Any]) -> Any:
    wanted = model_index.get("_class_name")
    families = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__) if not module.ispkg]
    known = sorted(name for family in families for name in family.PIPELINES)
    if isinstance(wanted, list | dict):
        raise UserError(
            f"{title}: model_index.json gives _class_name {wanted!r}, a pipeline with code of its own, which is never "
            f"run: where one of diffusers' own draws the same, name it there; supported: {', '.join(known)}"
        )
    for family in families:
        if wanted in family.PIPELINES:
            return family
    raise UserError(f"{title} is a {wanted}, which cannot be exported; supported: {', '.join(known)}")


def _entry(title: str, model_index: Mapping[str, Any], part: str, classes: tuple[str, ...]) -> tuple[str, str]:
    """Library and class of a module."""
    entry = model_index.get(part)
    library, found = entry if isinstance(entry, list) and len(entry) == 2 else (None, None)
    if found not in classes:
        raise UserError(f"{title}: {part} is a {found}, which is not supported; {classes[0]} is")
    expected = "diffusers" if hasattr(import_module("diffusers"), found) else "transformers"
    _check_library(title, part, library, found, expected)
    return expected, found


def _check_library(title: str, part: str, library: Any, found: str, expected: str) -> None:
    """Raises UserError unless a part's class comes from the library that has it."""
    if library in ("diffusers", "transformers") and library != expected:
        raise UserError(
            f"{title}: model_index.json takes {part}'s {found} from {library}, which has no such: write {expected}"
        )
    if library != expected:
        raise UserError(
            f"{title}: model_index.json takes {part}'s {found} from {library!r}, code of its own, which is never run: "
            f"where {expected} has the same, write {expected}"
        )
