"""The size of the latents for a picture's size in pixels, by default the size at which the UNet was trained."""

from typing import Any

from pocketdiffusion.runtime.errors import UserError


def latent_size(own: Any, factor: int, width: int | None, height: int | None) -> tuple[int, int]:
    """Return (width, height) of the latents, from the picture's size in pixels or, where that is None, from `own`, the
    UNet's `sample_size`.

    `factor` is the pixels per latent. Raise UserError if a side of the picture is not a multiple of it, and if there is
    no size.
    """
    own_h, own_w = own if isinstance(own, list | tuple) and len(own) == 2 else (own, own)
    if not all(size is None or isinstance(size, int) for size in (own_h, own_w)):
        raise UserError(f"unet: sample_size {own!r} in config.json is neither a number nor two")
    if (width is None and own_w is None) or (height is None and own_h is None):
        raise UserError("unet: config.json has no sample_size: give the size of the pictures, --size WxH")
    w, h = own_w * factor if width is None else width, own_h * factor if height is None else height
    if w <= 0 or h <= 0 or w % factor or h % factor:
        raise UserError(f"pictures of {w}x{h} do not fit this model: both must be multiples of {factor}")
    return w // factor, h // factor
