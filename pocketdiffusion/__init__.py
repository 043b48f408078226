"""Export Stable Diffusion checkpoints for phones, prove the result against the original, and draw with it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pocketdiffusion.runtime.bundle.bundle import open_bundle
    from pocketdiffusion.runtime.pipeline import draw, generate

__all__ = ["draw", "generate", "open_bundle"]


def __getattr__(name: str) -> Any:
    """Return a name of `__all__` or `__version__`. It is imported at its first use, so that the command line starts
    without numpy and pydantic, whose imports need 0.5 s."""
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
    """Return the version of the installed distribution, "0" if it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(__name__)
    except PackageNotFoundError:
        return "0"
