"""Measure the time of each stage of an export, which begins with a line of progress."""

from time import perf_counter

from pocketdiffusion.runtime.progress import Progress


def timed(progress: Progress) -> tuple[Progress, dict[str, float]]:
    """Return a function that forwards lines of progress to `progress`, and the dictionary that it fills: {line: seconds
    until the next line}."""
    seconds: dict[str, float] = {}
    begun: list[tuple[str, float]] = []

    def note(line: str) -> None:
        now = perf_counter()
        for before, start in begun:
            seconds[before] = seconds.get(before, 0) + now - start
        begun[:] = [(line, now)]
        progress(line)

    return note, seconds
