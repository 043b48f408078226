"""What a recipe is told of a component, and the plans that need no measurement."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from pocketdiffusion.export.component import Component
from pocketdiffusion.quantize.qparams import BITS, Span
from pocketdiffusion.quantize.recipes import Recipe, Survey, floor_of, load_recipe
from pocketdiffusion.quantize.scheme import FLOAT16, FLOAT32, Plan, Weight
from pocketdiffusion.runtime.errors import UserError

Spans = Callable[[str, int], tuple[dict[str, Span], dict[str, Span]]]  # of a component's operators: taken, given
_OPERATORS = {nn.Conv2d: "conv", nn.Linear: "linear", nn.Embedding: "embedding"}


def weights_of(part: Component) -> dict[str, Weight]:
    """The matrices of a component by name, with the operators that take them."""
    with torch.device("meta"):
        module = part.build()
    found = {}
    for name, parameter in module.state_dict().items():
        if parameter.ndim > 1:
            owner = module.get_submodule(name.rpartition(".")[0])
            found[name] = Weight(tuple(parameter.shape), _OPERATORS[type(owner)])  # type: ignore[arg-type]
    return found


def float_plan(part: Component, recipe: str) -> Plan:
    """That of "fp32" or "fp16". Raises UserError for a recipe that takes measurements, or is none."""
    schemes = {"fp32": FLOAT32, "fp16": FLOAT16}
    if load_recipe(recipe).name not in schemes:
        raise UserError(f"the recipe {recipe} decides by measurements: give its plan")
    return Plan(recipe, {name: schemes[recipe] for name, ref in part.weights.items() if len(ref.shape) > 1})


def plan_of(part: Component, recipe: Recipe, survey: Survey, spans: Spans) -> Plan:
    """What `recipe` decides for the component. `spans` is asked where activations become integers of fixed ranges."""
    plan = Plan(recipe.name, recipe.plan(weights_of(part), survey))
    if plan.activation in BITS:
        inputs, outputs = spans(part.spec.name, BITS[plan.activation])
        plan = replace(plan, inputs=inputs, outputs=outputs)
    if recipe.floors is None:
        return plan
    floor = floor_of(recipe, part.spec.name, part.stage)
    return replace(plan, floor_db=floor, picture_floors_db=recipe.floors.pictures)
