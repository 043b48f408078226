"""The folder is the registry: recipes/NAME.py decides how each matrix of a model is stored, and holds

plan(weights, survey) -> schemes by name    what it decides for one component
FLOORS                                      of a lossy recipe: what its artifacts must reach, and the evidence

A recipe is either of these files or a JSON file, as `search` writes it and a person may edit it.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from pocketdiffusion.quantize.scheme import Scheme, Weight
from pocketdiffusion.quantize.written import write_whole
from pocketdiffusion.runtime.bundle.verdicts import Kind
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.verify.tolerances import FLOORS_DB

FOLDER = Path(__file__).parent
ORDER = ("fp32", "fp16", "w8", "w8a16", "w8a8", "dynamic8", "palette8", "palette6", "palette4", "w4", "mixed")
LEAST_DB = 6.0  # of a floor: an error of half the largest value proves nothing
MOST_DB = FLOORS_DB["float32", "float32"]
RUNGS = tuple(kind.value for kind in Kind)  # of verdicts


@dataclass(frozen=True)
class Floors:
    """The least PSNR (dB, teacher-forced) of any output of a component, by component, and of pictures over the gate's
    prompts: the median, the minimum. `evidence` says what was measured, where, on which prompts."""

    graphs: Mapping[str, float]
    pictures: tuple[float, float]
    evidence: str


# The graphs of the built-in model, on which floors rest, by the stage of the program that calls each.
MEASURED = {
    "encode_prompt": "text_encoder",
    "encode_image": "vae_encoder",
    "denoise": "unet",
    "decode": "vae_decoder",
}


class Survey(Protocol):
    """What a recipe may ask of a component before it decides. Each answer takes a measurement, which is made once."""

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

    def damage(self, scheme: Scheme) -> Mapping[str, float]:
        """By weight: the mean squared error of the component's outputs, relative to their mean square, when that weight
        alone has `scheme`, on the search prompts."""
        ...


@dataclass(frozen=True)
class Recipe:
    """`schemes` is what a JSON file says, by component; None of a recipe that decides by itself."""

    name: str
    floors: Floors | None
    schemes: Mapping[str, Mapping[str, Scheme]] | None = None

    def plan(self, weights: Mapping[str, Weight], survey: Survey) -> dict[str, Scheme]:
        """The scheme of every matrix of one component. Raises UserError where a JSON file does not fit the model."""
        if self.schemes is None:
            schemes: dict[str, Scheme] = import_module(f"{__name__}.{self.name}").plan(weights, survey)
            return schemes
        told = self.schemes.get(survey.component, {})
        strange, lacking = sorted(set(told) - set(weights)), sorted(set(weights) - set(told))
        if strange or lacking:
            what = f"has no weight {strange[0]}" if strange else f"has the weight {lacking[0]}, which it does not name"
            raise UserError(f"the recipe is for another model: {survey.component} {what}")
        return dict(told)


def floor_of(recipe: Recipe, component: str, stage: str) -> float:
    """The floor (dB) of a component that `stage` of the program calls: its own, else, where nothing was measured on one
    of its name, that of the built-in model's graph in the same stage. Raises UserError where there is neither."""
    assert recipe.floors is not None
    graphs = recipe.floors.graphs
    floor = graphs.get(component, graphs.get(MEASURED.get(stage, "")))
    if floor is None:
        raise UserError(f"the recipe {recipe.name} has no floor for {component}: use fp32 or fp16, or search one")
    return floor


def recipe_names() -> list[str]:
    """All recipes of this folder, the exact ones first."""
    names = sorted(file.stem for file in FOLDER.glob("*.py") if file.stem != "__init__")
    return sorted(names, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


def load_recipe(name: str) -> Recipe:
    """A recipe by its name, or from a JSON file. Raises UserError."""
    if name.lower().endswith(".json"):
        return read_recipe(Path(name))
    known = recipe_names()
    if name not in known:
        near = get_close_matches(name.lower(), known, n=2, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}, or a JSON file"
        raise UserError(f"there is no recipe {name}: {hint}")
    return Recipe(name, import_module(f"{__name__}.{name}").FLOORS)


def read_recipe(file: Path) -> Recipe:
    """A recipe that `write_recipe` wrote. Raises UserError, naming the file and the entry, where it is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"cannot read the recipe {file}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"the recipe {file} is no JSON: {error}") from None
    try:
        fields = _object("all of it", content)
        schemes = {
            component: {
                weight: _scheme(f"{component}.{weight}", entry)
                for weight, entry in _object(f"schemes.{component}", entries).items()
            }
            for component, entries in _object("schemes", fields["schemes"]).items()
        }
        kinds = sorted({scheme.activation for each in schemes.values() for scheme in each.values()} - {"float"})
        if len(kinds) > 1:
            raise ValueError(f"has activation {' and '.join(kinds)}: beside float a recipe has one")
        return Recipe(_name(fields["name"]), _floors(_object("floors", fields["floors"]), schemes), schemes)
    except (KeyError, ValueError, RecursionError) as error:
        said = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"the recipe {file} {said}: see one that search wrote") from None


def _object(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"has {where} as {value!r:.40}, which is no object")
    return value


def _name(value: Any) -> str:
    """One that no verdict and no recipe of this folder has: by it they are told apart. Of searched ones there are
    many."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError(f"has the name {value!r:.40}, which is none")
    if value in RUNGS or value in recipe_names() and value != "mixed":
        raise ValueError(f"has the name {value}, which is taken")
    return value


def _floors(fields: Mapping[str, Any], components: Iterable[str]) -> Floors:
    graphs = {name: _floor(f"graphs.{name}", db) for name, db in _object("floors.graphs", fields["graphs"]).items()}
    for component in components:
        if component not in graphs:
            raise ValueError(f"lacks floors.graphs.{component}")
    pictures, evidence = fields["pictures"], fields["evidence"]
    if not isinstance(pictures, list) or len(pictures) != 2:
        raise ValueError(f"has floors.pictures as {pictures!r:.40}, which is no median and minimum")
    if not isinstance(evidence, str):
        raise ValueError(f"has floors.evidence as {evidence!r:.40}, which is no text")
    return Floors(graphs, (_floor("pictures", pictures[0]), _floor("pictures", pictures[1])), evidence)


def _floor(where: str, db: Any) -> float:
    if type(db) not in (int, float) or not LEAST_DB <= db <= MOST_DB:
        raise ValueError(f"has floors.{where} as {db!r:.40}, which is no dB from {LEAST_DB:g} to {MOST_DB:g}")
    return float(db)


def _scheme(where: str, entry: Any) -> Scheme:
    try:
        scheme = Scheme(**_object(where, entry))
    except TypeError as error:
        raise ValueError(f"has {where}, which is no scheme: {error}") from None
    allowed = {"float": (16, 32), "linear": range(2, 9), "palette": (1, 2, 3, 4, 6, 8)}.get(str(scheme.kind), ())
    if type(scheme.bits) is not int or scheme.bits not in allowed:
        raise ValueError(f"has {where} as {scheme.kind!s:.40} of {scheme.bits!r:.40} bits, which is no storage")
    activations = ("float", "int8", "int16", "dynamic")
    if scheme.activation not in activations or type(scheme.group) is not int or scheme.group < 0:
        raise ValueError(f"has {where} with activation {scheme.activation!s:.40} and group {scheme.group!r:.40}")
    return scheme


def write_recipe(file: Path, recipe: Recipe) -> None:
    """As JSON: sorted, so that two of the same decisions are the same bytes. Raises UserError where it cannot write."""
    assert recipe.floors is not None and recipe.schemes is not None
    fields = {
        "name": recipe.name,
        "floors": asdict(recipe.floors),
        "schemes": {
            component: {weight: asdict(scheme) for weight, scheme in schemes.items()}
            for component, schemes in recipe.schemes.items()
        },
    }
    write_whole(file, json.dumps(fields, indent=1, sort_keys=True) + "\n")
