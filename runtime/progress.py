"""Messages of long work to its caller: steps, of which each replaces the one before, and notes, which stay."""

from collections.abc import Callable

Progress = Callable[[str], None]  # is called with each message


class Note(str):
    """A line about the user's input that must stay on the screen, such as files of a checkpoint that are not read.

    Functions pass each step to their progress callback as plain text. A Note passed to the same callback is a warning:
    the command line prints it on stderr even if it shows no progress.
    """
