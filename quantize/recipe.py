"""A recipe: how each matrix of a model is stored and computed, and the floors that its artifacts must reach."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

from pocketdiffusion.quantize.floors import Floors
from pocketdiffusion.quantize.scheme import Scheme, Weight
from pocketdiffusion.runtime.errors import UserError

_FOLDER = "pocketdiffusion.quantize.recipes"


class Analysis(Protocol):
    """The facts of one component by which a recipe decides. Each needs a measurement, which is made once."""

    @property
    def component(self) -> str: ...

    @property
    def format(self) -> str:
        """Return the artifact's format, such as "onnx"."""
        ...

    @property
    def profile(self) -> str:
        """Return the artifact's profile, such as "ort" or "ios17"."""
        ...

    def sensitivity(self, scheme: Scheme) -> Mapping[str, float]:
        """Return, by weight, the mean squared error of the component's outputs on the search prompts, relative to
        their mean square, when only that weight has `scheme`."""
        ...


@dataclass(frozen=True)
class Unmeasured:
    """A Analysis of a component in which no weight is sensitive."""

    component: str
    format: str
    profile: str
    weights: Mapping[str, Weight]

    def sensitivity(self, scheme: Scheme) -> Mapping[str, float]:
        """Return 0 for each weight."""
        return dict.fromkeys(self.weights, 0.0)


@dataclass(frozen=True)
class Recipe:
    """A recipe. `floors`: its own floors, None if the gate's floors apply. `schemes`: the scheme of each weight, by
    component and weight name, from a JSON file; None if recipes/NAME.py decides."""

    name: str
    floors: Floors | None
    schemes: Mapping[str, Mapping[str, Scheme]] | None = None

    def plan(self, weights: Mapping[str, Weight], analysis: Analysis) -> dict[str, Scheme]:
        """Return the scheme of every matrix of one component. Raises UserError if the recipe's JSON file is for
        another model."""
        if self.schemes is None:
            schemes: dict[str, Scheme] = import_module(f"{_FOLDER}.{self.name}").plan(weights, analysis)
            return schemes
        stated = self.schemes.get(analysis.component, {})
        strange, missing = sorted(set(stated) - set(weights)), sorted(set(weights) - set(stated))
        if strange or missing:
            what = f"has no weight {strange[0]}" if strange else f"has the weight {missing[0]}, which it does not name"
            raise UserError(f"the recipe is for another model: {analysis.component} {what}; run search for this model")
        return dict(stated)
