"""Text files that are complete at any moment: written to a temporary file in the same folder, then renamed."""

from pathlib import Path

from pocketdiffusion.runtime.replace_file import replace_file


def write_complete(file: Path, text: str) -> None:
    """Write `text` to `file` as UTF-8; an existing file stays until it is replaced. Raises UserError if it cannot be
    written."""
    replace_file(file, text.encode())
