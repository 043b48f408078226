"""Text on the command line: UTF-8, whatever the locale says, and what cannot be printed is spelled out."""

import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from pocketdiffusion.runtime.errors import UserError


def ensure_utf8() -> None:
    """Start this process again in Python's UTF-8 mode where the locale has ASCII alone (LC_ALL=C): else a prompt with
    an accent could neither be read nor printed. In other locales, only make printing safe: what the encoding of
    standard output lacks is printed as an escape sequence."""
    if sys.getfilesystemencoding() == "ascii" and sys.executable and not sys.flags.utf8_mode:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with suppress(OSError):  # a stream that was exchanged for another since Python began
                stream.reconfigure(errors="backslashreplace")


def check_arguments(arguments: Sequence[str]) -> None:
    """Raises UserError, naming the argument, where its bytes are no text: Python hands them on as lone surrogates."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            shown = argument.encode(errors="backslashreplace").decode().replace("\\udc", "\\x")
            raise UserError(f"the argument '{shown}' is not UTF-8: give it in that encoding") from None
