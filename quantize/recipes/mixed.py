"""Each matrix in the storage that a search chose for it: fewer bits for less sensitive weights.

This file has no plan of its own: the search writes a recipe for one model and one size, with the storages that the
format's backend offers.
"""

from collections.abc import Mapping

from pocketdiffusion.quantize.recipe import Analysis
from pocketdiffusion.quantize.scheme import Scheme, Weight
from pocketdiffusion.runtime.errors import UserError


def plan(weights: Mapping[str, Weight], analysis: Analysis) -> dict[str, Scheme]:
    """Raise UserError, because a mixed recipe comes from a search for one model and one size."""
    raise UserError(
        "the recipe mixed is searched: give --budget-mb or --min-median-psnr, or the JSON file that search wrote"
    )
