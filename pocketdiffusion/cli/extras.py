"""Report in one line that a command needs torch or a converter that is not installed."""

from collections.abc import Iterator
from contextlib import contextmanager

from pocketdiffusion.runtime.errors import UserError


@contextmanager
def needs_export() -> Iterator[None]:
    """Raise UserError, with the command to install it, if the block imports a library that is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if str(error.name).startswith("pocketdiffusion"):
            raise
        raise UserError(f"this needs {error.name}: pip install 'pocketdiffusion[export]'") from error
