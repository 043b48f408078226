"""The floors of lossy recipes: the least PSNR (dB) of artifacts and pictures, and the evidence that they rest on.

recipes/floors.json has those of the recipes in recipes/. `python benchmarks/floors.py` generates it from measurements
and states the rule; nobody types a floor.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.verify.tolerances import FLOORS_DB

FILE = Path(__file__).parent / "recipes" / "floors.json"
LEAST_DB = 6.0  # of a floor: an error of half the largest value proves nothing
MOST_DB = FLOORS_DB["float32", "float32"]


@dataclass(frozen=True)
class Floors:
    """The least PSNR (dB) of any output of a component, teacher-forced, by component, and of pictures over the gate's
    prompts: the median, the minimum. `evidence` says what was measured, where, on which prompts."""

    graphs: Mapping[str, float]
    pictures: tuple[float, float]
    evidence: str


def floors_of(recipe: str) -> Floors | None:
    """Return the floors of a recipe in recipes/, None where it has the gate's own."""
    return _read(FILE).get(recipe)


def floor_of(recipe: str, floors: Floors, component: str, stage: str) -> float:
    """Return the floor (dB) of a component that `stage` of the program calls: its own, or that of the built-in model's
    graph in the same stage where `floors` do not name it. Raises UserError where there is neither."""
    floor = floors.graphs.get(component, floors.graphs.get(_measured(FILE).get(stage, "")))
    if floor is None:
        raise UserError(f"the recipe {recipe} has no floor for {component}: use fp32 or fp16, or search one")
    return floor


@cache
def _read(file: Path) -> dict[str, Floors]:
    content = json.loads(file.read_text(encoding="utf-8"))
    return {
        recipe: Floors(each["graphs"], (each["pictures"][0], each["pictures"][1]), each["evidence"])
        for recipe, each in content["recipes"].items()
    }


@cache
def _measured(file: Path) -> dict[str, str]:
    """Return the graphs of the built-in model, on which floors rest, by the stage of the program that calls each."""
    measured: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))["measured"]
    return measured
