"""Model families: each splits a checkpoint into components.

The folder is the registry: a file here serves the pipeline classes that its `PIPELINES` names, with

    components(checkpoint, width, height) -> list[Component]    in pixels, None for the size that it was trained at
    PIPELINE                     the class of diffusers that draws the reference
    calls(pipeline)              where that class calls each graph: {graph: GraphCall}
    modules(pipeline)            which of its modules have the weights of each component
    scheduler_config(config)     the scheduler's settings after that class has mended them
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from pocketdiffusion.export.checkpoints.folder import Checkpoint
from pocketdiffusion.export.component import Component
from pocketdiffusion.runtime.errors import UserError


def find_family(checkpoint: Checkpoint) -> Any:
    """The module here that serves the checkpoint's pipeline class. Raises UserError where there is none."""
    wanted = checkpoint.model_index.get("_class_name")
    families = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__) if not module.ispkg]
    for family in families:
        if wanted in family.PIPELINES:
            return family
    known = ", ".join(sorted(name for family in families for name in family.PIPELINES))
    raise UserError(f"{checkpoint.name} is a {wanted}, which cannot be exported; supported: {known}")


def components(checkpoint: Checkpoint, *, width: int | None = None, height: int | None = None) -> list[Component]:
    """The graphs of a checkpoint, batch 1, for pictures of `width` x `height` pixels, in the order they run in.

    Raises UserError where the pipeline class is of no known family, where a configuration asks for what its family
    does not do, where the size does not fit the model, and where the weights do not fit the configuration.
    """
    parts: list[Component] = find_family(checkpoint).components(checkpoint, width, height)
    return parts


def scheduler_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The settings of the scheduler that the checkpoint's pipeline draws with: of the class that model_index.json
    names, which need not be that of scheduler_config.json, as the pipeline mends them."""
    _, name = checkpoint.model_index["scheduler"]
    mended: dict[str, Any] = find_family(checkpoint).scheduler_config({**checkpoint.scheduler, "_class_name": name})
    return mended
