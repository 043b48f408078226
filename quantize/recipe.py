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
    """The facts of one component that a recipe may decide by. Each answer needs a measurement, which is made once."""

    @property
    def component(self) -> str: ...

    @property
    def format(self) -> str:
        """The artifact's: "onnx"."""
        ...

    @property
    def profile(self) -> str:
        """Its dialect: "ort", "ios17"."""
        ...

    def sensitivity(self, scheme: Scheme) -> Mapping[str, float]:
        """Return, by weight, the mean squared error of the component's outputs, relative to their mean square, when
        that weight alone has `scheme`, on the search prompts."""
        ...


@dataclass(frozen=True)
class Recipe:
    """`floors` None are the gate's own. `schemes`, by component and weight, come from a JSON file; None of a recipe
    that decides by its file in recipes/."""

    name: str
    floors: Floors | None
    schemes: Mapping[str, Mapping[str, Scheme]] | None = None

    def plan(self, weights: Mapping[str, Weight], analysis: Analysis) -> dict[str, Scheme]:
        """Return the scheme of every matrix of one component. Raises UserError where a JSON file does not fit it."""
        if self.schemes is None:
            schemes: dict[str, Scheme] = import_module(f"{_FOLDER}.{self.name}").plan(weights, analysis)
            return schemes
        told = self.schemes.get(analysis.component, {})
        strange, lacking = sorted(set(told) - set(weights)), sorted(set(weights) - set(told))
        if strange or lacking:
            what = f"has no weight {strange[0]}" if strange else f"has the weight {lacking[0]}, which it does not name"
            raise UserError(f"the recipe is for another model: {analysis.component} {what}")
        return dict(told)
