"""How long each stage of an export takes, by the lines that it says as it begins them."""

from collections.abc import Callable
from time import perf_counter

Say = Callable[[str], None]


def timed(say: Say) -> tuple[Say, dict[str, float]]:
    """Return `say`, and a table that it fills: the seconds from each line to the next, by line."""
    seconds: dict[str, float] = {}
    begun: list[tuple[str, float]] = []

    def note(line: str) -> None:
        now = perf_counter()
        for before, start in begun:
            seconds[before] = seconds.get(before, 0) + now - start
        begun[:] = [(line, now)]
        say(line)

    return note, seconds
