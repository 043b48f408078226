"""Each matrix in the storage that was searched for it: fewer bits where it is not sensitive.

This file has no plan of its own: the search writes a recipe for one model and one size, of the storages that the
format's backend offers.
"""

from collections.abc import Mapping

from pocketdiffusion.quantize.recipe import Analysis
from pocketdiffusion.quantize.scheme import Scheme, Weight
from pocketdiffusion.runtime.errors import UserError


def plan(weights: Mapping[str, Weight], analysis: Analysis) -> dict[str, Scheme]:
    """Raise UserError: there is one for each size."""
    raise UserError("the recipe mixed is searched: give --budget-mb or --min-psnr, or the JSON file that search wrote")
