"""Check the files that a command reads and writes before its work begins."""

from collections.abc import Callable
from pathlib import Path

from pocketdiffusion.runtime.errors import UserError


def read_prompts(path: Path) -> list[str]:
    """Return the lines of a text file that are not empty, without white space at their ends. Only \\n and \\r\\n end a
    line, since copied prompts may contain other separators. Raise UserError if the file cannot be read or is empty."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot read the prompts {path}: {getattr(error, 'strerror', None) or 'it is not UTF-8'}"
        ) from None
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if not lines:
        raise UserError(f"{path} has no prompts: write one prompt per line")
    return lines


def check_replaceable(file: Path, is_own: Callable[[Path], bool], kind: str) -> None:
    """Raise UserError if `file` exists, is not empty, and `is_own` returns False: only an older `kind` may be
    replaced."""
    if file.is_file() and file.stat().st_size and not is_own(file):
        raise UserError(f"{file} exists and is not a {kind}: move it, or give another -o")


def check_report(output: Path) -> None:
    """Raise UserError if a report cannot be written to `output`. Call this before the work."""
    if output.suffix.lower() not in (".html", ".htm"):
        raise UserError(
            f"cannot write {output}: the report is an HTML file; give a name that ends with .html, such as "
            f"{output.stem}.html"
        )
    if output.is_dir() or not output.resolve().parent.is_dir():
        raise UserError(
            f"cannot write {output}: it is a folder, or there is no folder {output.parent}: name a file in an "
            "existing folder"
        )


def check_recipe_file(out: Path) -> None:
    """Raise UserError unless a recipe can be written to `out`, a JSON file."""
    if out.suffix.lower() != ".json" or out.is_dir() or not out.resolve().parent.is_dir():
        raise UserError(f"cannot write {out}: name a JSON file in an existing folder")
