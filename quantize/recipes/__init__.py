"""The registry of recipes is this folder: recipes/NAME.py decides how each matrix of a model is stored, by a function

plan(weights, analysis) -> schemes by name    the decision for one component

floors.json, which benchmarks/floors.py writes, has the floors of the artifacts of lossy recipes; each lossy recipe of
this folder has to be in it (tests/test_recipes.py). `FLOORS`, a quantize.floors.Floors, is for a recipe that was not
measured yet; measured floors take precedence. A recipe is one of these files or a JSON file (quantize/recipe_file.py).

Every matrix gets a scheme; an embedding's has the activation "float", and a recipe has one kind of activation other
than "float". `list recipes` prints the first sentence of the file's docstring, docs/recipes.md its first paragraph.
"""

from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from pocketdiffusion.quantize import recipe_file
from pocketdiffusion.quantize.floors import Floors, floors_of
from pocketdiffusion.quantize.recipe import Recipe
from pocketdiffusion.runtime.errors import UserError

ORDER = ("fp32", "fp16", "w8", "w8a16", "w8a8", "dynamic8", "palette8", "palette6", "palette4", "w4", "mixed")


def recipe_names() -> list[str]:
    """Return the names of all recipes in this folder, in ORDER; others follow."""
    names = sorted(module.name for module in iter_modules(__path__))
    return sorted(names, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


def load_recipe(name: str) -> Recipe:
    """Return the recipe with this name, or from a JSON file. Raises UserError if there is none or the file is
    invalid."""
    if name.lower().endswith(".json"):
        return recipe_file.read_recipe(Path(name), recipe_names())
    known = recipe_names()
    if name not in known:
        near = get_close_matches(name.lower(), known, n=2, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(known)}, or a JSON file"
        raise UserError(f"there is no recipe {name}: {hint}")
    own: Floors | None = getattr(import_module(f"{__name__}.{name}"), "FLOORS", None)
    return Recipe(name, floors_of(name) or own)
