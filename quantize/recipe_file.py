"""A recipe as a JSON file, as `search` writes it and a person may edit it."""

import json
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pocketdiffusion.quantize.floors import LEAST_DB, MOST_DB, Floors
from pocketdiffusion.quantize.recipe import Recipe
from pocketdiffusion.quantize.scheme import Activation, Scheme
from pocketdiffusion.quantize.written import write_complete
from pocketdiffusion.runtime.bundle.verdicts import Kind
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.invalid import describe_invalid

SEARCHED = "mixed"  # the name of all searched recipes
RUNGS = tuple(kind.value for kind in Kind)  # names of rungs
BITS = {"float": (16, 32), "linear": tuple(range(2, 9)), "palette": (1, 2, 3, 4, 6, 8)}  # by kind of scheme

Floor = Annotated[float, Field(ge=LEAST_DB, le=MOST_DB, allow_inf_nan=False)]


class _Entry(BaseModel):
    """Unknown fields are ignored: a person may keep notes there."""

    model_config = ConfigDict(strict=True, frozen=True)


class SchemeEntry(_Entry):
    """`Scheme`, with the same fields; others are an error."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["float", "linear", "palette"]
    bits: int
    group: Annotated[int, Field(ge=0)] = 0
    activation: Activation = "float"

    @model_validator(mode="after")
    def _check_bits(self) -> "SchemeEntry":
        if self.bits not in BITS[self.kind]:
            allowed = ", ".join(map(str, BITS[self.kind]))
            raise ValueError(f"{self.kind} of {self.bits} bits does not exist: bits can be {allowed}")
        return self


class FloorsEntry(_Entry):
    """`Floors`, with the same fields."""

    graphs: dict[str, Floor]
    pictures: tuple[Floor, Floor]
    evidence: str


class RecipeEntry(_Entry):
    """The recipe's file."""

    name: str
    floors: FloorsEntry
    schemes: dict[str, dict[str, SchemeEntry]]

    @model_validator(mode="after")
    def _check_components(self) -> "RecipeEntry":
        for component in self.schemes:
            if component not in self.floors.graphs:
                raise ValueError(f"floors.graphs.{component} is missing")
        kinds = {entry.activation for entries in self.schemes.values() for entry in entries.values()} - {"float"}
        if len(kinds) > 1:
            raise ValueError(f"activation is {' and '.join(sorted(kinds))}: use one kind of activation besides float")
        return self


def read_recipe(file: Path, taken: Collection[str]) -> Recipe:
    """Read a recipe from JSON. Its name must not be one of `taken` nor a rung, because verdicts are identified by
    it. Raises UserError, with the file, the field and the allowed values, if the file is invalid."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read the recipe {file}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"the recipe {file} is not UTF-8 text: {error}") from None
    try:
        read = RecipeEntry.model_validate_json(text)
        _check_name(read.name, taken)
    except ValidationError as error:
        raise _refusal(file, describe_invalid(error, SchemeEntry)) from None
    except ValueError as error:
        raise _refusal(file, str(error)) from None
    floors = Floors(read.floors.graphs, read.floors.pictures, read.floors.evidence)
    schemes = {
        component: {weight: Scheme(**entry.model_dump()) for weight, entry in entries.items()}
        for component, entries in read.schemes.items()
    }
    return Recipe(read.name, floors, schemes)


def write_recipe(file: Path, recipe: Recipe) -> None:
    """Write a recipe that has schemes and floors, with sorted keys, so that equal recipes have equal bytes. Raises
    UserError if the file cannot be written."""
    assert recipe.floors is not None and recipe.schemes is not None
    fields = {
        "name": recipe.name,
        "floors": asdict(recipe.floors),
        "schemes": {
            component: {weight: asdict(scheme) for weight, scheme in schemes.items()}
            for component, schemes in recipe.schemes.items()
        },
    }
    write_complete(file, json.dumps(fields, indent=1, sort_keys=True) + "\n")


def _refusal(file: Path, reason: str) -> UserError:
    return UserError(
        f"the recipe {file} is not valid: {reason}; compare it with a file that `pocketdiffusion search` wrote"
    )


def _check_name(name: str, taken: Collection[str]) -> None:
    if not name.strip() or not name.isprintable():
        raise ValueError(f"name is {name!r:.40}: give printable text")
    if name in RUNGS or (name in taken and name != SEARCHED):
        raise ValueError(f"name is {name!r}, which is taken: choose another")
