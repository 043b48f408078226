"""Functions that are imported when they are called, so that a backend's record can be read without its libraries."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any


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
