"""The folder is the registry: each package in it is a format, whose record is its `BACKEND`. None imports torch.

Inside a format's folder the same concepts have files of the same names:

    refusals         schemes of weights that the format cannot hold, and the recipe to use instead
    emit             writes an artifact; its parts differ (onnx: lowering, weights, quantization, lint; tflite: convert,
                     draft, finish, lint; coreml: lowering, quantization)
    activations      the forms of SiLU, QuickGELU and GELU, by profile
    intermediate_outputs  finds each layer's output in a file, and runs the file with these outputs exposed
    fp16_emulation   runs a file with the output of each operator rounded to float16
    capabilities     the engine versions that a file needs, and the compute units known to run it right or wrong
    memory           counts the memory in bytes that an engine needs for a file
    costs.json       time and memory that were measured, for `export --plan`; without it the plan says "not measured"

The format's engine is runtime/engines/NAME.py. A file that the same engine opens is a profile of a format.
"""

from difflib import get_close_matches
from importlib import import_module
from pkgutil import iter_modules

from pocketdiffusion.export.backends.backend import Backend
from pocketdiffusion.runtime.errors import UserError


def backend_names() -> list[str]:
    """Return the names of the formats in alphabetical order."""
    return sorted(module.name for module in iter_modules(__path__) if module.ispkg)


def find_backend(name: str) -> Backend:
    """Return the record of the format `name`. Raise UserError with the nearest names if there is no such format."""
    names = backend_names()
    if name not in names:
        near = get_close_matches(name.lower(), names, n=2, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(names)}"
        raise UserError(f"there is no format {name}: {hint}")
    backend: Backend = import_module(f"{__name__}.{name}").BACKEND
    return backend


def unit_names() -> list[str]:
    """Return the names of the compute units that artifacts can be made for, each name once."""
    return list(dict.fromkeys(unit for name in backend_names() for unit in find_backend(name).compute_units))


def profile_names() -> list[str]:
    """Return the names of the profiles of all formats, each name once."""
    return list(dict.fromkeys(profile for name in backend_names() for profile in find_backend(name).profiles))
