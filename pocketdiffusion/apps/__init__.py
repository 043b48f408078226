"""The apps that a bundle can be put into: a file each, in this folder. Adding a file adds an app.

A file holds

    SYSTEM   what targets call the phone's system, such as Android: their `os_floor` begins with it
    ENGINES  the version of each engine that the app has, by the name that bundles use; a version of None is any
    put(part, name, phone, say) -> str

`put` brings the runtime part in the folder `part` to where the app finds it under `name`, on the phone `phone` where
several are connected (None: there is one), and returns a sentence that says where it is. It raises UserError where it
cannot, with what to do.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from pocketdiffusion.runtime.errors import UserError

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class App:
    """A file of this folder."""

    name: str
    system: str
    engines: Mapping[str, str | None]
    put: Callable[[Path, str, str | None, Callable[[str], None]], str]


def app_names() -> list[str]:
    """Return the names that `load_app` takes."""
    return sorted(path.stem for path in FOLDER.glob("[!_]*.py"))


def load_app(name: str) -> App:
    """Return the app of the file `name`.py. Raises UserError where there is none."""
    if name not in app_names():
        raise UserError(f"there is no app {name}: known are {', '.join(app_names())}")
    module = import_module(f"{__name__}.{name}")
    return App(name, module.SYSTEM, module.ENGINES, module.put)
