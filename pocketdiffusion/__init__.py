"""Stable Diffusion on a phone: a checkpoint becomes a bundle of artifacts proven equal to the original model."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pocketdiffusion.runtime.bundle.bundle import open_bundle
    from pocketdiffusion.runtime.pipeline import draw, generate

__all__ = ["draw", "generate", "open_bundle"]


def __getattr__(name: str) -> Any:
    """Import a name of `__all__`, or look up `__version__`, when it is first asked for: so the command line starts
    without numpy and pydantic, which take half a second."""
    if name in ("draw", "generate"):
        from pocketdiffusion.runtime import pipeline

        return getattr(pipeline, name)
    if name == "open_bundle":
        from pocketdiffusion.runtime.bundle.bundle import open_bundle

        return open_bundle
    if name == "__version__":
        return _version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _version() -> str:
    """Return the version of the installed distribution, "0" in a bare clone."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(__name__)
    except PackageNotFoundError:
        return "0"
