"""A decoder as a graph for tiles of the picture, which readers blend (runtime/vae_tiles.py)."""

from collections.abc import Sequence

from pocketdiffusion.export.component import Component
from pocketdiffusion.export.tile_size import TileSize
from pocketdiffusion.runtime.bundle.picture_records import Vae
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.vae_tiles import Tiling


def tile_components(title: str, parts: Sequence[Component], wanted: TileSize | None) -> list[Component]:
    """Return the components of the model `title`, its decoder for tiles of the `wanted` size; None: for the complete
    picture. Raise UserError if it has no such decoder, or if the size is not possible."""
    if wanted is None:
        return list(parts)
    if not any(part.tile for part in parts):
        raise UserError(f"{title} has no VAE decoder that can be tiled: leave out --vae-tiles")
    return [part if part.tile is None else part.tile(part, wanted) for part in parts]


def stated_tiles(vae: Vae) -> TileSize | None:
    """Return the size of the tiles that a bundle states; None if its decoder is for complete pictures."""
    return None if vae.tile_size is None else TileSize(vae.tile_size, vae.tile_overlap)


def tiling_of(parts: Sequence[Component]) -> Tiling | None:
    """Return the tiling of a model's decoder, None if it decodes complete pictures."""
    return next((part.tiling for part in parts if part.tiling is not None), None)
