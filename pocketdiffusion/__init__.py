"""Stable Diffusion on a phone: a checkpoint becomes a bundle of artifacts proven equal to the original model."""

from importlib.metadata import PackageNotFoundError, version

from pocketdiffusion.runtime.bundle.bundle import open_bundle
from pocketdiffusion.runtime.pipeline import draw, generate

__all__ = ["draw", "generate", "open_bundle"]

try:
    __version__ = version("pocketdiffusion")
except PackageNotFoundError:  # a bare clone
    __version__ = "0"
