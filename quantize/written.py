"""A file that is whole at any moment: written beside its place, then renamed."""

import os
from pathlib import Path

from pocketdiffusion.runtime.errors import UserError


def write_whole(file: Path, text: str) -> None:
    """`text` as UTF-8. What was there stays until it is replaced. Raises UserError where it cannot be written."""
    place = file.resolve()
    beside = place.with_name(f"{place.name}.part")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, place)
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}") from None
    finally:
        beside.unlink(missing_ok=True)
