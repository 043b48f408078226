"""Pictures that users have, read as the picture that they see, or refused in one line."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin
from support.command import refusal

from pocketdiffusion.cli.arguments import open_picture
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.image import read_picture

ORIENTATION = 0x0112
LEVELS = np.add.outer(np.arange(48), 3 * np.arange(64)).astype(np.uint8)  # 48 rows, 64 columns: no two corners alike
COLOURS = np.stack([LEVELS, LEVELS.T[:48].repeat(2, 1)[:, :64], 255 - LEVELS], axis=-1)


def read(path: Path) -> NDArray[np.uint8]:
    return read_picture(path, 64, 48)


@pytest.mark.parametrize("format", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize(("orientation", "turned"), [(1, None), (3, 180), (6, 90), (8, 270)])
def test_a_photo_is_read_upright(tmp_path: Path, format: str, orientation: int, turned: int | None) -> None:
    """As a camera writes it: the sensor's rows, and by how much to turn them."""
    upright = Image.fromarray(COLOURS)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = upright if turned is None else upright.rotate(turned, expand=True)
    stored.save(tmp_path / f"a.{format}", exif=exif, lossless=True)
    np.testing.assert_allclose(read(tmp_path / f"a.{format}"), COLOURS, atol=48 if format == "jpg" else 0)
    if format == "jpg":
        upright.save(tmp_path / "upright.jpg")
        assert np.abs(read(tmp_path / "upright.jpg").astype(int) - read(tmp_path / "a.jpg")).mean() < 3


@pytest.mark.parametrize("format", ["png", "tif"])
def test_grey_of_16_bits_is_that_of_8(tmp_path: Path, format: str) -> None:
    Image.fromarray(LEVELS).save(tmp_path / "8.png")
    for factor in (256, 257):  # as programs widen it
        Image.fromarray(LEVELS.astype(np.uint16) * factor).save(tmp_path / f"16.{format}")
        np.testing.assert_array_equal(read(tmp_path / f"16.{format}"), read(tmp_path / "8.png"))


def test_colours_of_16_bits_are_those_of_8(tmp_path: Path) -> None:
    """Pillow writes no such file: one that is made by hand, with the clear colour in 16 bits as well."""
    rows = (COLOURS.astype(">u2") * 257).reshape(48, -1)
    clear = [int(level) * 257 for level in COLOURS[7, 9]]
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    with (tmp_path / "16.png").open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        PngImagePlugin.putchunk(file, b"IHDR", struct.pack(">2I5B", 64, 48, 16, 2, 0, 0, 0))
        PngImagePlugin.putchunk(file, b"tRNS", struct.pack(">3H", *clear))
        PngImagePlugin.putchunk(file, b"IDAT", zlib.compress(data))
        PngImagePlugin.putchunk(file, b"IEND", b"")
    wanted = COLOURS.copy()
    wanted[(COLOURS == COLOURS[7, 9]).all(axis=-1)] = 255
    np.testing.assert_array_equal(read(tmp_path / "16.png"), wanted)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_other_kinds_are_read_as_they_look(tmp_path: Path, mode: str) -> None:
    """By diffusers' own conversion, over white where something is clear."""
    picture = Image.fromarray(COLOURS).convert("P" if mode == "PA" else mode)
    wanted = np.asarray(picture.convert("RGB"))
    if mode == "PA":
        picture.putalpha(255)
    picture.save(tmp_path / "a.tif" if mode in ("CMYK", "YCbCr", "PA") else tmp_path / "a.png")
    np.testing.assert_allclose(read(next(tmp_path.iterdir())), wanted, atol=3 if mode == "YCbCr" else 0)


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGBA", "I;16"])
def test_what_is_clear_is_white(tmp_path: Path, mode: str) -> None:
    levels = np.where(LEVELS < 40, 0, LEVELS)
    if mode == "I;16":
        Image.fromarray(levels.astype(np.uint16) * 257).save(tmp_path / "a.png", transparency=0)
    elif mode in ("L", "P"):
        Image.fromarray(levels).convert(mode).save(tmp_path / "a.png", transparency=0)
    else:
        picture = Image.fromarray(levels).convert(mode)
        picture.putalpha(Image.fromarray(np.where(levels == 0, 0, 255).astype(np.uint8)))
        picture.save(tmp_path / "a.png")
    wanted = np.where(levels == 0, 255, levels)
    np.testing.assert_array_equal(read(tmp_path / "a.png"), wanted[..., None].repeat(3, -1))


@pytest.mark.parametrize("format", ["gif", "png", "webp", "tif"])
def test_of_several_frames_the_first_is_read(tmp_path: Path, format: str) -> None:
    first, second = Image.fromarray(LEVELS), Image.fromarray(255 - LEVELS)
    options: dict[str, Any] = {"lossless": True} if format == "webp" else {}
    first.save(tmp_path / f"a.{format}", save_all=True, append_images=[second], **options)
    np.testing.assert_array_equal(read(tmp_path / f"a.{format}"), LEVELS[..., None].repeat(3, -1))


def test_pictures_whose_white_is_not_known_are_refused(tmp_path: Path) -> None:
    """Of floats, of 32 bits, of 16 bits in formats that leave it open: none of them is read as nearly white."""
    wide = LEVELS.astype(np.uint16) * 257
    Image.fromarray(wide.astype(np.float32) / 65535).save(tmp_path / "float.tif")
    Image.fromarray(wide.astype(np.int32)).save(tmp_path / "int.tif")
    Image.fromarray(wide).save(tmp_path / "grey.pgm")
    Image.fromarray(wide).save(tmp_path / "inverted.tif", tiffinfo={262: 0})
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(UserError, match=f"{path.name} has .*: save it as a PNG or JPEG with 8 bits per channel"):
            open_picture(path, 64, 48)


def test_a_command_says_it_in_one_line(tiny_bundle: Path, tmp_path: Path) -> None:
    Image.fromarray(LEVELS.astype(np.float32)).save(tmp_path / "float.tif")
    said = refusal("generate", tiny_bundle, "apple", "--image", tmp_path / "float.tif", "-o", tmp_path / "out.png")
    assert "float.tif has floats" in said and not (tmp_path / "out.png").exists()
