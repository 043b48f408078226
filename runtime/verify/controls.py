"""Controls: other pictures by the original, which show what a PSNR in dB means for this model.

34 dB is close for one model, and for another one further away than the picture of another seed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import Protocol

SEED, STEPS, PROMPT = ALL = ("another seed", "one step less", "the prompt without its last word")


class Median(Protocol):
    """A verdict, from the gate or from a manifest."""

    @property
    def subject(self) -> str: ...
    @property
    def format(self) -> str | None: ...
    @property
    def psnr_db(self) -> float: ...


def shorten(prompt: str) -> str:
    """Return the prompt without its last word; "" if it has only one."""
    return " ".join(prompt.split()[:-1])


def middle(values: Sequence[float]) -> float:
    """Return the median; of an even number of values the lower of the two in the middle, inf without values."""
    return sorted(values)[(len(values) - 1) // 2] if values else inf


def medians(controls: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median (dB) of each control over the prompts that have it."""
    names = dict.fromkeys(name for each in controls for name in each)
    return {name: middle([each[name] for each in controls if name in each]) for name in names}


def compare_with(db: float, controls: Mapping[str, float]) -> str:
    """Return a sentence that compares a PSNR (dB) with its controls. A control with an identical picture is ignored."""
    told = {name: value for name, value in controls.items() if value < inf}
    if not told:
        return "without controls"
    near = [f"{name} ({_db(value)})" for name, value in told.items() if db > value]
    far = [f"{name} ({_db(value)})" for name, value in told.items() if not db > value]
    words = [f"closer to the reference than the reference's own picture with {_and(near)}"] if near else []
    words += [f"not closer than the reference's own picture with {_and(far)}"] if far else []
    return ", but ".join(words)


def describe_pictures(verdicts: Iterable[Median], controls: Sequence[Mapping[str, float]]) -> Iterator[str]:
    """Yield a line for each format: the median PSNR of its pictures, compared with the controls."""
    for verdict in verdicts:
        if verdict.subject == "pictures.median":
            words = compare_with(verdict.psnr_db, medians(controls))
            yield f"{verdict.format} pictures, median {_db(verdict.psnr_db)}: {words}"


def _db(value: float) -> str:
    return "identical" if value == inf else f"{value:.1f} dB"


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
