"""What every command shows alike: progress, errors as one line, exit codes."""

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from rich.console import Console

from pocketdiffusion.cli.interrupts import hear_interrupts
from pocketdiffusion.runtime.errors import PocketDiffusionError

PIPED_WIDTH = 160  # columns where the output is no terminal: rich would take 80, and cut the tables

console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH)


def say(line: str) -> None:
    """Prints a line as it is: not wrapped, not read as markup."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress(title: str) -> Iterator[Callable[[str], None]]:
    """A line that says what is being done; where the output is no terminal, one printed line per step."""
    if not console.is_terminal:
        say(title)
        yield lambda step: say(f"  {step}")
        return
    with console.status("") as status:

        def update(step: str) -> None:
            status.update(f"{title}: {step}".replace("[", r"\["))

        update("starting")
        yield update


def run(command: Callable[[], object]) -> NoReturn:
    """Runs `command` and exits: 0, 1 for a failed proof, 2 for the user's mistake, 130 when interrupted."""
    try:
        with hear_interrupts():
            command()
    except PocketDiffusionError as error:
        finish(str(error), error.exit_code)
    except OSError as error:
        if error.errno == errno.EPIPE:
            sys.exit(1)
        finish(f"{error.filename}: {error.strerror}" if error.filename else str(error), 2)
    except MemoryError:
        finish("out of memory: close other programs, or take a smaller model", 2)
    except KeyboardInterrupt:
        finish("interrupted", 130)
    sys.exit(0)


def finish(message: str, code: int) -> NoReturn:
    """Exits with `code` after one line on stderr."""
    line = f"pocketdiffusion: {' '.join(message.split())}"
    Console(stderr=True).print(line, style="bold red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(code)
