"""The command list: the names that options accept."""

from enum import Enum
from typing import Annotated

import typer

from pocketdiffusion.cli.console import Output
from pocketdiffusion.cli.options import Json


class Kind(Enum):
    """A kind of names that can be listed."""

    RECIPES = "recipes"
    SAMPLERS = "samplers"
    PROFILES = "profiles"
    FORMATS = "formats"
    TARGETS = "targets"


def list_names(
    kind: Annotated[Kind, typer.Argument(metavar="KIND", help="The kind of names to list.")],
    as_json: Json = False,
) -> None:
    """List the names that options accept."""
    output = Output(as_json=as_json)
    found = _names(kind)
    output.json(lambda: [{"name": name, "meaning": meaning} for name, meaning in found.items()])
    width = max(map(len, found))
    for name, meaning in found.items():
        output.print_line(f"{name:{width}}  {meaning}".rstrip())


def _names(kind: Kind) -> dict[str, str]:
    """Return {name: meaning} of one kind. Each meaning is one line."""
    from pocketdiffusion.export.backends import backend_names, find_backend
    from pocketdiffusion.export.targets import load_target, target_names
    from pocketdiffusion.quantize import recipes
    from pocketdiffusion.runtime.sampling import samplers

    if kind is Kind.RECIPES:
        return {name: _summary(f"{recipes.__name__}.{name}") for name in recipes.recipe_names()}
    if kind is Kind.SAMPLERS:
        return {name: _summary(f"{samplers.__name__}.{name}") for name in samplers.sampler_names()}
    if kind is Kind.TARGETS:
        return {name: load_target(name).title for name in target_names()}
    if kind is Kind.FORMATS:
        return {name: f"profiles: {', '.join(find_backend(name).profiles)}" for name in backend_names()}
    meanings: dict[str, list[str]] = {}
    for name in backend_names():
        for profile, operators in find_backend(name).profiles.items():
            meanings.setdefault(profile, []).append(f"{name}: {operators}")
    return {profile: "; ".join(each) for profile, each in meanings.items()}


def _summary(module: str) -> str:
    """Return the first sentence of a module's docstring."""
    from importlib import import_module

    text = " ".join((import_module(module).__doc__ or "").split())
    return text.partition(". ")[0].rstrip(".")
