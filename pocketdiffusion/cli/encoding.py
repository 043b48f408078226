"""Read and print text as UTF-8 in every locale. Characters that cannot be printed become escape sequences."""

import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from pocketdiffusion.runtime.errors import UserError


def ensure_utf8() -> None:
    """Start this process again in Python's UTF-8 mode if the locale is ASCII only (LC_ALL=C), because a prompt with an
    accent could neither be read nor printed. In other locales, only make stdout and stderr print characters that their
    encoding does not have as escape sequences."""
    if sys.getfilesystemencoding() == "ascii" and sys.executable and not sys.flags.utf8_mode:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with suppress(OSError):  # a stream that was replaced after Python started
                stream.reconfigure(errors="backslashreplace")


def check_arguments(arguments: Sequence[str]) -> None:
    """Raise UserError if an argument is not UTF-8. Python represents its bytes as lone surrogates."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            shown = argument.encode(errors="backslashreplace").decode().replace("\\udc", "\\x")
            raise UserError(f"the argument '{shown}' is not UTF-8: give it in that encoding") from None
