"""The floors of lossy recipes: the least PSNR (dB) of artifacts and pictures, and the evidence for them.

recipes/floors.json has the floors of the recipes in recipes/. `python benchmarks/floors.py` computes them from
measurements and states the rule; nobody types a floor.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.verify.tolerances import FLOORS_DB

FILE = Path(__file__).parent / "recipes" / "floors.json"
# The least `FLOOR_DB` of rewrites that change the model (export/rewrites): `verify` refuses a bundle that states less.
# Measured of tanh_gelu: 91.4 dB on the built-in UNet (6 prompts, 6 steps each, none of the gate's), 82.7 on Stable
# Diffusion 1.5's topology with random weights and a context ten times as large as usual. The floor allows twice that
# error.
CHANGED_DB = 76.0
LEAST_DB = 6.0  # lowest floor: an error of half the largest value proves nothing
MOST_DB = FLOORS_DB["float32", "float32"]


@dataclass(frozen=True)
class Floors:
    """`graphs`: the least PSNR (dB) of any output of a component, teacher-forced, by component. `pictures`: the
    least median and minimum PSNR (dB) over the gate's prompts. `evidence`: what was measured, where, on which
    prompts."""

    graphs: Mapping[str, float]
    pictures: tuple[float, float]
    evidence: str


def floors_of(recipe: str) -> Floors | None:
    """Return the floors of a recipe in recipes/, None if the gate's own floors apply."""
    return _read(FILE).get(recipe)


def floor_of(recipe: str, floors: Floors, component: str, stage: str) -> float:
    """Return the floor (dB) of a component that `stage` of the program calls. If `floors` do not name the component,
    it is the floor of the built-in model's graph in the same stage. Raises UserError if there is neither."""
    floor = floors.graphs.get(component, floors.graphs.get(_measured(FILE).get(stage, "")))
    if floor is None:
        raise UserError(
            f"the recipe {recipe} has no floor for {component}: use fp32 or fp16, or a recipe from `search`"
        )
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
    """Return the graphs of the built-in model that floors were measured on, by the stage of the program that calls
    each."""
    measured: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))["measured"]
    return measured
