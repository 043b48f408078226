"""Print results on stdout; progress, warnings and errors on stderr; and end a command with its exit code."""

import errno
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any, NoReturn

from pocketdiffusion.cli.interrupts import hear_interrupts
from pocketdiffusion.cli.progress import time_left
from pocketdiffusion.cli.streams import standard_streams
from pocketdiffusion.runtime.errors import PocketDiffusionError
from pocketdiffusion.runtime.progress import Note, Progress
from pocketdiffusion.runtime.scratch import describe_nameless

if TYPE_CHECKING:
    from rich.console import Console

BROKEN_PIPE = 141  # the exit code when the reader of stdout is gone, as in a shell
PIPED_WIDTH = 160  # columns if stdout is not a terminal: rich would use 80 and cut the tables
INTERNAL = 3  # the exit code of an error of this program


@cache
def stdout() -> "Console":
    """Return the console of results. rich is imported at the first print, because its import needs 0.1 s."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH)


@cache
def stderr() -> "Console":
    """Return the console of progress, warnings and errors."""
    from rich.console import Console

    return Console(stderr=True)


@dataclass(frozen=True)
class Output:
    """The output of a command. By default, results for people are printed on stdout. `as_json`: only one JSON document
    is printed there. `quiet`: no results, progress or warnings. Errors are always printed on stderr."""

    quiet: bool = False
    as_json: bool = False

    def print_line(self, line: str) -> None:
        """Print a line of the result for people."""
        if not self.quiet and not self.as_json:
            print_line(line)

    def table(self, table: Any) -> None:
        """Print a table (of rich) of the result for people."""
        if not self.quiet and not self.as_json:
            stdout().print(table)

    def warn(self, line: str) -> None:
        """Print a warning on stderr."""
        if not self.quiet:
            warn(line)

    def json(self, record: Callable[[], Any]) -> None:
        """Print the return value of `record` as the one JSON document of the command, if `as_json`."""
        if self.as_json:
            from pocketdiffusion.cli.json_output import dump

            sys.stdout.write(dump(record()))

    @contextmanager
    def show_progress(self, title: str) -> Iterator[Progress]:
        """Yield a function that shows a step of the work on stderr, as `progress` below; with `quiet` it shows
        nothing."""
        if self.quiet:
            yield lambda line: None
            return
        with show_progress(title) as show:
            yield show


def print_line(line: str) -> None:
    """Print a line on stdout as it is: not wrapped, not read as markup."""
    stdout().print(line, markup=False, highlight=False, soft_wrap=True)


def warn(line: str) -> None:
    """Print a line on stderr as it is."""
    stderr().print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def show_progress(title: str, *, log: bool = False) -> Iterator[Progress]:
    """Yield a function that shows a step of the work in one live line on stderr, with the time left if the steps are
    counted. If stderr is not a terminal, only notes (`Note`) are printed, and with `log` each step as a line, so that
    pipes get no control characters."""
    if not stderr().is_terminal:
        yield lambda line: warn(line) if log or isinstance(line, Note) else None
        return
    left = time_left()
    with stderr().status("") as status:

        def show(line: str) -> None:
            if isinstance(line, Note):
                warn(line)
            else:
                status.update(f"{title}: {left(line)}".replace("[", r"\["))

        show("starting")
        yield show


def run(command: Callable[[], object]) -> NoReturn:
    """Run `command` and exit with 0, 1 (a check failed), 2 (a mistake of the user), 3 (an error of this program) or 130
    (interrupted)."""
    try:
        with standard_streams(), hear_interrupts():
            command()
    except PocketDiffusionError as error:
        finish(str(error), error.exit_code)
    except OSError as error:
        if error.errno == errno.EPIPE:
            sys.exit(BROKEN_PIPE)
        finish(f"{error.filename}: {error.strerror}" if error.filename else describe_nameless(error), 2)
    except MemoryError:
        finish("out of memory: close other programs, or use a smaller model", 2)
    except KeyboardInterrupt:
        finish("interrupted", 130)
    except Exception as error:
        finish(describe_internal(error), INTERNAL)
    sys.exit(0)


def describe_internal(error: Exception) -> str:
    """Return a line on an error of this program. Its traceback is written to a file, which the line names."""
    said = f"internal error, which is our fault and not yours: {type(error).__name__}: {error}"
    text = "".join(traceback.format_exception(error))
    try:
        with NamedTemporaryFile(
            "w", prefix="pocketdiffusion-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(text)
    except OSError:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{said}; it was raised in {last.filename}, line {last.lineno}: please report both"
    return f"{said}; please report it with the traceback in {file.name}"


def finish(message: str, code: int) -> NoReturn:
    """Print `message` as one line on stderr, and exit with `code`."""
    line = f"pocketdiffusion: {' '.join(message.split())}"
    with suppress(OSError, SystemExit):  # stderr may be a broken pipe too
        stderr().print(line, style="bold red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(code)
