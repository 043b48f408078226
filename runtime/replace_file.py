"""Replace a file atomically: written in the same folder under a temporary name, then renamed."""

import os
from pathlib import Path
from secrets import token_hex

from pocketdiffusion.runtime.errors import UserError


def replace_file(file: Path, content: bytes) -> None:
    """Write `content` as `file`. An older file is left as it was until it is replaced. Raise UserError if it cannot be
    written."""
    place = file.resolve()
    beside = place.with_name(f".{place.name[:100]}.{token_hex(8)}")
    try:
        if place.exists() and not place.is_file():  # a device, such as /dev/null
            place.write_bytes(content)
            return
        with beside.open("xb") as stream:
            stream.write(content)
        os.replace(beside, place)
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}") from None
    finally:
        beside.unlink(missing_ok=True)
