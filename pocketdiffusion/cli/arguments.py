"""Check the arguments of a command before its work begins: sizes, pictures, folders."""

import re
import struct
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from pocketdiffusion.files import check_replaceable
from pocketdiffusion.runtime.errors import UserError

_CORRUPT = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    TypeError,
    struct.error,
)  # raised by Pillow for corrupt headers and EXIF


def open_picture(path: Path, width: int, height: int) -> Any:
    """Return the picture `path` as uint8 [height, width, 3]. Raise UserError if it cannot be read as a picture."""
    from PIL import Image, UnidentifiedImageError

    from pocketdiffusion.runtime.image import read_picture

    try:
        return read_picture(path, width, height)
    except UnidentifiedImageError:
        raise UserError(f"{path} cannot be read as a picture: give a PNG or JPEG file") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, *_CORRUPT) as error:  # Pillow raises these
        raise UserError(f"cannot read the picture {path}: {getattr(error, 'strerror', None) or error}") from None


def parse_size(size: str | None) -> tuple[int | None, int | None]:
    """Return width and height in pixels of a text such as "512x768"; None and None if `size` is None. Raise UserError
    if the text has another form."""
    if size is None:
        return None, None
    parts = size.lower().split("x")
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise UserError(f"--size {size} is not a size: give width and height in pixels, such as 512x512")
    return int(parts[0]), int(parts[1])


def parse_bytes(text: str | None) -> int | None:
    """Return the bytes of a text such as "6GB", "6.5 GB" or "800MB" (1e9 and 1e6 bytes); None if `text` is None. Raise
    UserError if the text has another form or is 0."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([GM])B", text.strip(), re.IGNORECASE | re.ASCII)
    size = int(float(found[1]) * (1e9 if found[2] in "gG" else 1e6)) if found else 0
    if not size:
        raise UserError(f"--max-memory {text} is not a size of memory: give a number with a unit, such as 6GB or 800MB")
    return size


def _is_drawn(file: Path) -> bool:
    """Return True if `file` is a PNG with the metadata that `generate` writes."""
    from PIL import Image

    try:
        with Image.open(file, formats=("PNG",)) as picture:
            return "bundle_id" in picture.info
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, *_CORRUPT):
        return False


def check_writable(output: Path) -> None:
    """Raise UserError if a picture cannot be written to `output`. Call this before the work."""
    if output.suffix.lower() not in ("", ".png"):
        raise UserError(f"cannot write {output}: pictures are written as PNG, name it {output.stem}.png")
    if output.is_dir():
        raise UserError(f"cannot write {output}: that is a folder, name a file in it")
    check_replaceable(output, _is_drawn, "picture that generate drew")
    if not output.resolve().parent.is_dir():
        raise UserError(f"cannot write {output}: there is no folder {output.parent}")
    try:
        with output.open("ab") if output.exists() else TemporaryFile(dir=output.resolve().parent):
            pass
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror}") from None


def expand_home(folder: Path) -> Path:
    """Return `folder` with the user's home in place of `~`. Raise UserError if there is none: HOME is not set, and the
    user id has no name."""
    try:
        return folder.expanduser()
    except RuntimeError:
        raise UserError(
            f"{folder} cannot be found: HOME is not set and the user has no name; give --standins"
        ) from None
