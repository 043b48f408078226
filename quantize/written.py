"""A text file that is complete at any moment: written beside its place, then renamed."""

from pathlib import Path

from pocketdiffusion.runtime.replace_file import replace_file


def write_whole(file: Path, text: str) -> None:
    """Write `text` as UTF-8. What was there stays until it is replaced. Raises UserError where it cannot be written."""
    replace_file(file, text.encode())
