"""Targets for tests."""

from dataclasses import replace

from pocketdiffusion.export.backends import find_backend
from pocketdiffusion.export.targets import Target, load_target


def only(format: str) -> Target:
    """Return the generic target with the default artifact of one format."""
    return replace(load_target("generic"), artifacts=(find_backend(format).default,))
