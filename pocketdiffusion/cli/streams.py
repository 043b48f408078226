"""Make standard input, output and error safe: any may be closed, be a broken pipe, or write to a full disk."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.scratch import FULL

MODES = {"stdin": "r", "stdout": "w", "stderr": "w"}


@contextmanager
def standard_streams() -> Iterator[None]:
    """Make every standard stream usable within the block: a closed one becomes the null device, so that no file opened
    later gets its number. Output is flushed when the block ends.

    Raise BrokenPipeError if the reader of standard output is gone (rich turns that into SystemExit), and UserError if
    standard output cannot be written for another reason."""
    _open_closed()
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):
            _check_output()
            raise BrokenPipeError(*error.__context__.args) from None
        raise
    except OSError as error:
        _check_output(probe=error.errno in FULL and not error.filename)
        raise
    _check_output()


def _open_closed() -> None:
    for number, (name, mode) in enumerate(MODES.items()):
        try:
            os.fstat(number)
        except OSError:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))


def _check_output(probe: bool = False) -> None:
    """Flush standard output. `probe` writes one more line end first, because an earlier failure is forgotten. If that
    fails, drop the output, so that Python does not fail on it again at exit."""
    try:
        if probe:
            sys.stdout.write("\n")
        sys.stdout.flush()
    except OSError as error:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        raise UserError(f"cannot write to standard output: {error.strerror}") from None
