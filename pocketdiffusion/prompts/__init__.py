"""The prompts that calibration, search and tests draw, one a line, each with its own seed. No two files share one."""

from collections.abc import Sequence
from pathlib import Path

from pocketdiffusion.export.reference.record import Request

FOLDER = Path(__file__).parent
SEEDS = {"search": 1000, "calibration": 2000, "test": 3000}  # of the first line; each further one takes the next
STEPS = 10


def requests(name: str, count: int | None = None) -> list[Request]:
    """The first `count` lines of NAME.txt, or all."""
    return numbered(name, (FOLDER / f"{name}.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")[:count])


def numbered(name: str, prompts: Sequence[str]) -> list[Request]:
    """`prompts`, drawn for the purpose `name`: each with a seed of its own."""
    return [Request(prompt, seed=SEEDS[name] + number, steps=STEPS) for number, prompt in enumerate(prompts)]
