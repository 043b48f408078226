"""The apps that can run bundles: one file each in this folder. Adding a file adds an app.

A file has

    SYSTEM   the phone's system, such as Android: targets' `os_floor` begins with it
    ENGINES  the version of each engine in the app, by the name that bundles use; None: any version
    install_bundle(part, name, phone, progress) -> str

`install_bundle` copies the runtime part in the folder `part` to the app under `name`, on the phone `phone` (None: the
only one that is connected), and returns a sentence that says where it is. It raises UserError, with what to do, if it
fails.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.progress import Progress

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class App:
    """An app: the contents of one file of this folder."""

    name: str
    system: str
    engines: Mapping[str, str | None]
    install_bundle: Callable[[Path, str, str | None, Progress], str]


def app_names() -> list[str]:
    """Return the names that `load_app` accepts."""
    return sorted(path.stem for path in FOLDER.glob("[!_]*.py"))


def load_app(name: str) -> App:
    """Return the app of the file `name`.py. Raises UserError if there is none."""
    if name not in app_names():
        raise UserError(f"there is no app {name}: choose {' or '.join(app_names())}")
    module = import_module(f"{__name__}.{name}")
    return App(name, module.SYSTEM, module.ENGINES, module.install_bundle)
