"""A file more in a folder of the product that is a registry, for as long as a test needs it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest


@contextmanager
def registered(package: ModuleType, name: str, source: str, folder: Path) -> Iterator[None]:
    """Register `source` as the module `name` of `package`: as if the file lay in that folder. It is written to
    `folder`, which holds no other module."""
    (folder / f"{name}.py").write_text(source, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(package, "__path__", [*package.__path__, str(folder)])
        try:
            yield
        finally:
            sys.modules.pop(f"{package.__name__}.{name}", None)
