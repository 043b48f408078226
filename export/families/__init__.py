"""Model families: each splits a checkpoint into components.

The folder is the registry: a file here serves the pipeline classes that its `PIPELINES` names, with

    components(checkpoint, width, height) -> list[Component]

where `width` and `height` are pixels, or None for the size that the model was trained at.
"""

from importlib import import_module
from pkgutil import iter_modules

from pocketdiffusion.export.checkpoints.folder import Checkpoint
from pocketdiffusion.export.component import Component
from pocketdiffusion.runtime.errors import UserError


def components(checkpoint: Checkpoint, *, width: int | None = None, height: int | None = None) -> list[Component]:
    """The graphs of a checkpoint, batch 1, for pictures of `width` x `height` pixels, in the order they run in.

    Raises UserError where the pipeline class is of no known family, where a configuration asks for what its family
    does not do, where the size does not fit the model, and where the weights do not fit the configuration.
    """
    wanted = checkpoint.model_index.get("_class_name")
    families = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__) if not module.ispkg]
    for family in families:
        if wanted in family.PIPELINES:
            parts: list[Component] = family.components(checkpoint, width, height)
            return parts
    known = ", ".join(sorted(name for family in families for name in family.PIPELINES))
    raise UserError(f"{checkpoint.name} is a {wanted}, which cannot be exported; supported: {known}")
