"""The folder is the registry: each package in it is a format, whose record is its `BACKEND`. None imports torch.

Inside a format's folder the same concepts lie in files of the same names:

    refusals         what the format cannot hold, and the recipe to take instead
    emit             writes an artifact; lowering, weights and quantization are its parts
    lint             what must not be in a file
    taps             which result of a file is which layer's
    fp16_emulation   runs a file with each result rounded to float16
    capabilities     what a file asks of an engine, and the compute units that it is known good or bad on
    memory           what a file takes of memory, counted
"""

from difflib import get_close_matches
from importlib import import_module
from pkgutil import iter_modules

from pocketdiffusion.export.backends.backend import Backend
from pocketdiffusion.runtime.errors import UserError


def backend_names() -> list[str]:
    """Return the formats, in the order of the alphabet."""
    return sorted(module.name for module in iter_modules(__path__) if module.ispkg)


def find_backend(name: str) -> Backend:
    """Return the record of the format `name`. Raises UserError, with the nearest, where there is none."""
    names = backend_names()
    if name not in names:
        near = get_close_matches(name.lower(), names, n=2, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(names)}"
        raise UserError(f"there is no format {name}: {hint}")
    backend: Backend = import_module(f"{__name__}.{name}").BACKEND
    return backend


def profile_names() -> list[str]:
    """Return the profiles of all formats, each once."""
    return list(dict.fromkeys(profile for name in backend_names() for profile in find_backend(name).profiles))
