"""Plans: the decision of a recipe for one component, with value ranges and floors."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from pocketdiffusion.quantize.floors import floor_of
from pocketdiffusion.quantize.qparams import BITS, Ranges
from pocketdiffusion.quantize.recipe import Analysis, Recipe
from pocketdiffusion.quantize.scheme import FLOAT16, FLOAT32, Plan, Weight
from pocketdiffusion.runtime.errors import UserError

_FLOATS = {"fp32": FLOAT32, "fp16": FLOAT16}


def float_plan(recipe: str, matrices: Iterable[str]) -> Plan:
    """Return the plan of "fp32" or "fp16" for matrices of these names. Raises UserError for any other recipe, which
    needs an analysis."""
    if recipe not in _FLOATS:
        raise UserError(
            f"the recipe {recipe} needs measurements of the model, which were not made: use fp32 or fp16, or run "
            "`pocketdiffusion export`"
        )
    return Plan(recipe, dict.fromkeys(matrices, _FLOATS[recipe]))


def make_plan(
    recipe: Recipe,
    weights: Mapping[str, Weight],
    analysis: Analysis,
    ranges: Callable[[str, int], Ranges],
    stage: str,
) -> Plan:
    """Return the plan of `recipe` for the component of `analysis`, which `stage` of the program calls.

    `ranges` is called with the component and bits if activations become integers with calibrated ranges. Raises
    UserError if the recipe does not fit the model or has no floor for the component.
    """
    plan = Plan(recipe.name, recipe.plan(weights, analysis))
    if plan.activation in BITS:
        found = ranges(analysis.component, BITS[plan.activation])
        plan = replace(plan, inputs=found.inputs, outputs=found.outputs)
    if recipe.floors is None:
        return plan
    floor = floor_of(recipe.name, recipe.floors, analysis.component, stage)
    return replace(plan, floor_db=floor, picture_floors_db=recipe.floors.pictures)
