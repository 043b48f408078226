"""Pictures: decoded tensors to 8-bit and back, and PNG files that say how they were made."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin


def to_uint8(sample: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The VAE's output, float32 [1, 3, H, W] about -1..1, as uint8 [H, W, 3].

    Clamped before rounding, as diffusers' VaeImageProcessor does, so that no value wraps around. NaN becomes 0.
    """
    unit = np.clip(np.nan_to_num(sample[0], nan=-1.0) * np.float32(0.5) + np.float32(0.5), 0, 1)
    levels: NDArray[np.uint8] = np.rint(unit * np.float32(255)).astype(np.uint8)
    return levels.transpose(1, 2, 0)


def from_uint8(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [H, W, 3] as the VAE encoder's input, float32 [1, 3, H, W] in -1..1."""
    return (picture.astype(np.float32) / np.float32(127.5) - np.float32(1)).transpose(2, 0, 1)[None]


def read_picture(path: Path, width: int, height: int) -> NDArray[np.uint8]:
    """Any file that Pillow reads, as uint8 [height, width, 3]; transparent parts over white."""
    with Image.open(path) as file:
        picture = file.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture)
    return np.asarray(white.convert("RGB").resize((width, height), Image.Resampling.LANCZOS))


def write_png(path: Path, picture: NDArray[np.uint8], facts: Mapping[str, Any]) -> None:
    """`facts` (prompt, seed, steps, ...) become text chunks of the file; values other than strings are JSON."""
    text = PngImagePlugin.PngInfo()
    for key, value in facts.items():
        text.add_itxt(key, value if isinstance(value, str) else json.dumps(value))
    Image.fromarray(picture).save(path, "PNG", pnginfo=text)


def contact_sheet(pictures: list[NDArray[np.uint8]], columns: int, scale: int = 2) -> NDArray[np.uint8]:
    """Pictures of one size side by side, uint8 [H, W, 3], each enlarged `scale` times; white fills the rest."""
    height, width, _ = pictures[0].shape
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        top, left = i // columns * height, i % columns * width
        sheet[top : top + height, left : left + width] = picture
    return sheet.repeat(scale, axis=0).repeat(scale, axis=1)
