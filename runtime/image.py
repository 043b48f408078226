"""Pictures: decoded tensors to 8 bits and back, and PNG files that state how they were made."""

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin, TiffImagePlugin

from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.replace_file import replace_file


def to_uint8(sample: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Convert the VAE's output, float32 [1, 3, H, W] about -1..1, to uint8 [H, W, 3].

    Values are clamped before rounding, as in diffusers' VaeImageProcessor, so that none wraps around. NaN becomes 0.
    """
    unit = np.clip(np.nan_to_num(sample[0], nan=-1.0) * np.float32(0.5) + np.float32(0.5), 0, 1)
    levels: NDArray[np.uint8] = np.rint(unit * np.float32(255)).astype(np.uint8)
    return levels.transpose(1, 2, 0)


def from_uint8(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Convert uint8 [H, W, 3] to the VAE encoder's input, float32 [1, 3, H, W] in -1..1."""
    return (picture.astype(np.float32) / np.float32(127.5) - np.float32(1)).transpose(2, 0, 1)[None]


def read_picture(path: Path, width: int, height: int) -> NDArray[np.uint8]:
    """Read a picture as uint8 [height, width, 3]: resized, upright as EXIF says, transparent parts over white, the
    first of several frames, CMYK converted as diffusers does.

    16 bits are reduced to the upper 8: Pillow does so for RGB, but clips grey at 255. Raise UserError if the value of
    white is not known: floats, integers of 32 bits, and 16 bits of grey in other files than PNG and plain TIFF.
    """
    with Image.open(path) as file:
        grey16 = file.mode.startswith("I;16")
        if file.mode in ("I", "F") or (grey16 and not _is_plain_grey(file)):
            kind = {"I": "integers of more than 16 bits", "F": "floats"}.get(file.mode, "grey of another depth")
            raise UserError(
                f"{path} has {kind}, and which value is white is not known: save it as a PNG or JPEG with 8 bits "
                "per channel"
            )
        picture = ImageOps.exif_transpose(file)
    picture = _as_rgba(picture) if grey16 else _with_transparency_of_8_bits(picture).convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture)
    return np.asarray(white.convert("RGB").resize((width, height), Image.Resampling.LANCZOS))


def _is_plain_grey(file: Image.Image) -> bool:
    """Return True if 0 is black and 65535 white: always in PNG; TIFF has 12 bits, signed values and white as 0 too."""
    if not isinstance(file, TiffImagePlugin.TiffImageFile):
        return file.format == "PNG"
    bits, meaning, signed = (file.tag_v2.get(tag) for tag in (258, 262, 339))
    return bits in (16, (16,)) and meaning == 1 and signed in (None, 1, (1,))


def _as_rgba(grey: Image.Image) -> Image.Image:
    """Convert 16 bits of grey to RGBA with the upper 8 bits; the value that its transparency names becomes clear."""
    values = np.asarray(grey)
    levels = (values >> 8).astype(np.uint8)
    clear = grey.info.get("transparency")
    alpha = np.full(levels.shape, 255, np.uint8) if clear is None else np.where(values == clear, 0, 255)
    return Image.fromarray(np.stack([levels, levels, levels, alpha.astype(np.uint8)], axis=-1))


def _with_transparency_of_8_bits(picture: Image.Image) -> Image.Image:
    """Convert the clear colour of `picture` to 8 bits, in place. Of 16 bits of RGB Pillow converts only the pixels."""
    clear = picture.info.get("transparency")
    if isinstance(clear, tuple) and max(clear) > 255:
        picture.info["transparency"] = tuple(value >> 8 for value in clear)
    return picture


def write_png(path: Path, picture: NDArray[np.uint8], facts: Mapping[str, Any]) -> None:
    """Write uint8 [H, W, 3] as PNG. `facts` (prompt, seed, ...) become text chunks of the file; values other than
    strings become JSON. Raise UserError if the file cannot be written: then an older file is left as it was."""
    text = PngImagePlugin.PngInfo()
    for key, value in facts.items():
        text.add_itxt(key, value if isinstance(value, str) else json.dumps(value))
    encoded = BytesIO()
    Image.fromarray(picture).save(encoded, "PNG", pnginfo=text)
    replace_file(path, encoded.getvalue())


def contact_sheet(pictures: list[NDArray[np.uint8]], columns: int, scale: int = 2) -> NDArray[np.uint8]:
    """Return pictures of one size side by side, uint8 [H, W, 3], each enlarged `scale` times, on white."""
    height, width, _ = pictures[0].shape
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        top, left = i // columns * height, i % columns * width
        sheet[top : top + height, left : left + width] = picture
    return sheet.repeat(scale, axis=0).repeat(scale, axis=1)
