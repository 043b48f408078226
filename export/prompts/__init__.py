"""The prompts of calibration, search and tests, one per line, each with its own seed. No prompt is in two files."""

from collections.abc import Sequence
from pathlib import Path

from pocketdiffusion.export.reference.requests import Request

FOLDER = Path(__file__).parent
SEEDS = {"search": 1000, "calibration": 2000, "test": 3000}  # of the first line; each further line has the next one
STEPS = 10


def requests(name: str, count: int | None = None) -> list[Request]:
    """Return the first `count` prompts of NAME.txt (all if None), each as a Request with its own seed."""
    return numbered(name, (FOLDER / f"{name}.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")[:count])


def numbered(name: str, prompts: Sequence[str]) -> list[Request]:
    """Return `prompts` as Requests of the purpose `name` (a key of SEEDS), each with its own seed."""
    return [Request(prompt, seed=SEEDS[name] + number, steps=STEPS) for number, prompt in enumerate(prompts)]
