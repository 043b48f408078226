"""The tiles that a bundle's VAE decodes in, by its manifest."""

from pocketdiffusion.runtime.bundle.picture_records import Latents, Vae
from pocketdiffusion.runtime.vae_tiles import Tiling


def find_tiling(latents: Latents, vae: Vae) -> Tiling | None:
    """Return the tiling of a bundle; None if its decoder is given the complete latents. Raise ValueError if the tiles
    contradict the latents."""
    if vae.tile_size is None or vae.tile_overlap is None:
        return None
    for name, pixels in (("tile_size", vae.tile_size), ("tile_overlap", vae.tile_overlap)):
        if pixels % latents.scale:
            raise ValueError(f"vae.{name} is {pixels}, which is not a multiple of latents.scale, {latents.scale}")
    tiling = Tiling(
        latents.height,
        latents.width,
        latents.scale,
        vae.tile_size // latents.scale,
        vae.tile_overlap // latents.scale,
    )
    if tiling.tile >= max(latents.height, latents.width):
        side = max(latents.height, latents.width) * latents.scale
        raise ValueError(f"vae.tile_size is {vae.tile_size}, and the larger side of the picture is {side} pixels")
    return tiling
