"""Functions that are imported when they are called, so that a backend's record can be read without its libraries."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

# The functions of a backend's record, by field, where a format's folder keeps them.
FOLDER = {
    "emit": "emit:emit",
    "layers": "taps:layers",
    "open_tapped": "taps:open_tapped",
    "open_replay": "fp16_emulation:open_replay",
    "needs": "capabilities:needs",
    "units": "capabilities:units",
    "count_memory": "memory:count_memory",
}


@dataclass(frozen=True)
class Lazy:
    """The function at `place`, spelled "package.module:function"."""

    place: str

    def resolve(self) -> Any:
        """Import the module and return its function."""
        module, _, name = self.place.partition(":")
        return getattr(import_module(module), name)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the function. Raises whatever it raises."""
        return self.resolve()(*arguments, **options)


def folder_functions(package: str) -> dict[str, Any]:
    """Return the functions of a record whose folder, the package of that name, has the files that `FOLDER` names."""
    return {field: Lazy(f"{package}.{place}") for field, place in FOLDER.items()}
