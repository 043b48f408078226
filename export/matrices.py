"""The matrices of a component, in the terms of the package quantize."""

import torch
from torch import nn

from pocketdiffusion.export.component import Component
from pocketdiffusion.quantize import plans
from pocketdiffusion.quantize.scheme import Plan, Weight

_OPERATORS = {nn.Conv2d: "conv", nn.Linear: "linear", nn.Embedding: "embedding"}


def weights_of(part: Component) -> dict[str, Weight]:
    """Return the matrices of a component by name, with the operators that read them."""
    with torch.device("meta"):
        module = part.build()
    found = {}
    for name, parameter in module.state_dict().items():
        if parameter.ndim > 1:
            owner = module.get_submodule(name.rpartition(".")[0])
            found[name] = Weight(tuple(parameter.shape), _OPERATORS[type(owner)])  # type: ignore[arg-type]
    return found


def float_plan(part: Component, recipe: str) -> Plan:
    """Return the plan of a component for "fp32" or "fp16". Raise UserError as `plans.float_plan` does."""
    return plans.float_plan(recipe, [name for name, ref in part.weights.items() if len(ref.shape) > 1])
