"""Each matrix in the storage that was searched for it: fewer bits where it is not sensitive.

This file has no plan of its own: the search writes a recipe, of the storages below, for one model and one size.
"""

from collections.abc import Mapping

from pocketdiffusion.quantize.granularity import palette_group
from pocketdiffusion.quantize.recipe import Analysis
from pocketdiffusion.quantize.scheme import FLOAT16, Scheme, Weight
from pocketdiffusion.runtime.errors import UserError


def candidates(format: str, profile: str) -> tuple[Scheme, ...]:
    """Return the storages that a weight may get in an artifact of that format and dialect, the smallest first."""
    if format == "coreml":
        group = palette_group(profile)
        bits = (1, 2, 3, 4, 6, 8) if profile == "ios18" else (1, 2, 4, 6, 8)
        return (*(Scheme("palette", each, group) for each in bits), FLOAT16)
    if format == "onnx":
        return (Scheme("linear", 4, 32), Scheme("linear", 8), FLOAT16)
    return (Scheme("linear", 8), FLOAT16)


def plan(weights: Mapping[str, Weight], analysis: Analysis) -> dict[str, Scheme]:
    """Raise UserError: there is one for each size."""
    raise UserError("the recipe mixed is searched: give --budget-mb or --min-psnr, or the JSON file that search wrote")
