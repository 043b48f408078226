"""A decoder as a graph for tiles of the picture, which readers blend (runtime/vae_tiles.py)."""

from collections.abc import Sequence

from pocketdiffusion.export.component import Component, TileSize
from pocketdiffusion.runtime.bundle.picture_records import Vae
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.vae_tiles import Tiling

# diffusers' AutoencoderKL decodes Stable Diffusion in tiles of 64 latents: GroupNorm and attention see one tile only,
# so that smaller ones have other colours. A smaller picture has tiles of 7/8 of its larger side.
LEAST_TILE = 64
OVERLAP = 4  # a quarter of a tile, as in diffusers


def tile_components(title: str, parts: Sequence[Component], wanted: TileSize | None) -> list[Component]:
    """Return the components of the model `title`, its decoder for tiles of the `wanted` size; None: for the complete
    picture. Raise UserError if it has no such decoder, or if the size is not possible."""
    if wanted is None:
        return list(parts)
    if not any(part.tile for part in parts):
        raise UserError(f"{title} has no VAE decoder that can be tiled: leave out --vae-tiles")
    return [part if part.tile is None else part.tile(part, wanted) for part in parts]


def choose_tiling(height: int, width: int, scale: int, wanted: TileSize) -> Tiling:
    """Return the tiling of latents of `height` x `width`, of which the decoder makes `scale` pixels each. Raise
    UserError if tiles of the wanted size are not possible."""
    side = max(height, width)
    tile = min(max(-(-side // 2), LEAST_TILE), side * 7 // 8)
    if wanted.size is not None:
        tile = wanted.size // scale
        if wanted.size % scale or not 1 < tile < side:
            raise UserError(
                f"--vae-tile-size {wanted.size} is not possible: tiles of this model are multiples of {scale} pixels, "
                f"from {2 * scale} to {(side - 1) * scale}"
            )
    if tile < 2:
        raise UserError(f"pictures of {width * scale}x{height * scale} are too small for tiles: leave out --vae-tiles")
    overlap = max(1, tile // OVERLAP) if wanted.overlap is None else wanted.overlap // scale
    return Tiling(height, width, scale, tile, overlap)


def stated_tiles(vae: Vae) -> TileSize | None:
    """Return the size of the tiles that a bundle states; None if its decoder is for complete pictures."""
    return None if vae.tile_size is None else TileSize(vae.tile_size, vae.tile_overlap)


def tiling_of(parts: Sequence[Component]) -> Tiling | None:
    """Return the tiling of a model's decoder, None if it decodes complete pictures."""
    return next((part.tiling for part in parts if part.tiling is not None), None)
