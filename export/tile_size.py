"""The size of the tiles in which a VAE decodes. Nothing here needs torch."""

from dataclasses import dataclass

from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.vae_tiles import Tiling

# diffusers' AutoencoderKL decodes Stable Diffusion in tiles of 64 latents: GroupNorm and attention see one tile only,
# so that smaller ones have other colours. A smaller picture has tiles of 7/8 of its larger side.
LEAST_TILE = 64
OVERLAP = 4  # a quarter of a tile, as in diffusers


@dataclass(frozen=True)
class TileSize:
    """The size and overlap of the VAE's tiles in pixels; None for the default."""

    size: int | None = None
    overlap: int | None = None


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
