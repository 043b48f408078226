"""The folder is the registry: standins/NAME.py is the stand-in NAME, on which `verify --device NAME` runs graphs. It
defines

    STANDIN     a StandinFacts: how to start a worker there, and what is known of it (runtime/devices/facts.py)

How an engine runs graphs there is stated in the engine's file, by the stand-in's name (`standin_runs` and `not_run` of
runtime/engines/facts.py). To be installable, a stand-in needs its packages in tools/packages.json and its function in
tools/unpack.py.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from pocketdiffusion.runtime.errors import UserError

if TYPE_CHECKING:
    from pocketdiffusion.runtime.devices.facts import StandinFacts

PYTHON = "3.13"  # the interpreter of the stand-in arm64; the wheels are for it


def standin_names() -> list[str]:
    """Return the names of the stand-ins in alphabetical order. Nothing is imported."""
    return sorted(module.name for module in iter_modules(__path__))


def load_standin(name: str) -> "StandinFacts":
    """Return the record of the stand-in `name`. Raise UserError if there is no such stand-in."""
    names = standin_names()
    if name not in names:
        raise UserError(f"there is no stand-in {name}: choose from {', '.join(names)}")
    standin: StandinFacts = import_module(f"{__name__}.{name}").STANDIN
    return standin
