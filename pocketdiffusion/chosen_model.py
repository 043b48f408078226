"""Open a model as a target and the options of an export say, which `export` and `search` share."""

from collections.abc import Sequence

from pocketdiffusion.choices import ExportOptions
from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.original import open_model
from pocketdiffusion.export.targets import BLENDED, Target
from pocketdiffusion.export.tile_size import TileSize
from pocketdiffusion.runtime.progress import Progress


def open_chosen(
    model: str, target: Target, options: ExportOptions, progress: Progress
) -> tuple[Checkpoint, Sequence[Component]]:
    """Return the checkpoint and its components. `target` is that of `check_export`. Raise UserError as `open_model`
    does."""
    return open_model(
        model,
        width=options.width,
        height=options.height,
        sampler=options.sampler,
        split_unet=target.split_unet,
        tiles=TileSize(options.vae_tile_size) if target.vae_tiles == BLENDED else None,
        revision=options.revision,
        token=options.token,
        allow_unexpected=options.allow_unexpected,
        progress=progress,
    )
