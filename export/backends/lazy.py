"""Functions that are imported when they are called, so that a backend's record can be read without its libraries."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

# By field of a backend's record: the function, and its file in the format's folder.
FOLDER = {
    "emit": "emit:emit",
    "layers": "intermediate_outputs:layers",
    "open_with_outputs": "intermediate_outputs:open_with_outputs",
    "open_replay": "fp16_emulation:open_replay",
    "needs": "capabilities:needs",
    "units": "capabilities:units",
    "count_memory": "memory:count_memory",
}


@dataclass(frozen=True)
class Lazy:
    """The function at `place`, spelled "package.module:function"."""

    import_path: str

    def resolve(self) -> Any:
        """Import the module of `place` and return the function."""
        module, _, name = self.import_path.partition(":")
        return getattr(import_module(module), name)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Import the function and call it."""
        return self.resolve()(*arguments, **options)


def folder_functions(package: str) -> dict[str, Any]:
    """Return the fields of a backend's record whose functions are in the files of `package` that `FOLDER` names."""
    return {field: Lazy(f"{package}.{place}") for field, place in FOLDER.items()}
