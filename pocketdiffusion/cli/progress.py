"""Show what long work is at: one live line on a terminal, with the time left where the work counts its steps."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

COUNT = re.compile(r"\b(\d+) of (\d+)\b")


@dataclass(frozen=True)
class Counted:
    """Work that counts its steps: what is counted, and which step began at `begun` (seconds of a monotonic clock)."""

    what: str
    first: int
    begun: float


def time_left(clock: Callable[[], float] = monotonic) -> Callable[[str], str]:
    """Return a function that takes each line of progress and returns it with the time left, where that is known.

    A line with a count, such as "recording the original: prompt 3 of 4", says that step 3 begins. The time left is the
    mean time of the steps that ended since the first line with the same words, times the steps that remain. It is not
    known before the first step has ended.
    """
    counted: Counted | None = None

    def estimate(line: str) -> str:
        nonlocal counted
        found = COUNT.search(line)
        if found is None:
            return line
        step, steps = int(found[1]), int(found[2])
        what, now = re.sub(r"\d+", "", line[: found.start()]), clock()
        if counted is None or counted.what != what or step < counted.first:
            counted = Counted(what, step, now)
        ended = step - counted.first
        if not ended or step > steps:
            return line
        return f"{line}, about {duration((now - counted.begun) / ended * (steps - step + 1))} left"

    return estimate


def duration(seconds: float) -> str:
    """Return `seconds` for people: "40 s", "3 min", "2 h 5 min"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
