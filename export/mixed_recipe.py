"""Search the mixed recipe of a model: the best of a size, or the smallest of a quality."""

from contextlib import AbstractContextManager

from pocketdiffusion.export.artifact import Artifact
from pocketdiffusion.export.backends import find_backend
from pocketdiffusion.export.original import Original
from pocketdiffusion.export.prompts import requests
from pocketdiffusion.export.quantization import analyse
from pocketdiffusion.quantize.measure.analysis import SensitivityAnalysis
from pocketdiffusion.quantize.mixed_precision.goal import check_goal
from pocketdiffusion.quantize.mixed_precision.search import Measured, Search, open_search
from pocketdiffusion.quantize.recipe import Recipe
from pocketdiffusion.runtime.progress import Progress


def find_mixed(
    original: Original, artifact: Artifact, budget_mb: float | None, min_psnr: float | None, progress: Progress
) -> Recipe:
    """Return the recipe that `search` would write, for an original that is already open."""
    check_goal(budget_mb, min_psnr)
    with analyse_original(original, progress) as analysis:
        opened = open_mixed(analysis, artifact)
        return opened.recipe(choose_mixed(opened, budget_mb, min_psnr))


def analyse_original(original: Original, progress: Progress) -> AbstractContextManager[SensitivityAnalysis]:
    """Open the sensitivity analysis of an original on the search prompts; nothing is measured before a recipe needs
    it."""
    return analyse(original.checkpoint, original.parts, requests("search"), progress=progress)


def open_mixed(analysis: SensitivityAnalysis, artifact: Artifact) -> Search:
    """Return the search among the recipes whose storages the artifact's format has."""
    return open_search(analysis, artifact.format, find_backend(artifact.format).search_storages(artifact.profile))


def choose_mixed(opened: Search, budget_mb: float | None, min_psnr: float | None) -> Measured:
    """Return the best recipe of `budget_mb` (MB of 1e6 bytes), or the smallest of `min_psnr` (dB): one is given. Raise
    UserError if there is none."""
    if budget_mb is not None:
        return opened.best_within(round(budget_mb * 1e6))
    assert min_psnr is not None
    return opened.smallest_with_median(min_psnr)
