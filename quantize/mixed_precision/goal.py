"""The goal of a search for a mixed recipe: a size or a quality."""

from pocketdiffusion.runtime.errors import UserError


def check_wanted(budget_mb: float | None, min_psnr: float | None) -> None:
    """Raise UserError unless exactly one is given, as a positive number."""
    given = [value for value in (budget_mb, min_psnr) if value is not None]
    if len(given) != 1:
        raise UserError("give either --budget-mb or --min-psnr")
    if not 0 < given[0] < float("inf"):
        raise UserError(f"{given[0]} is not a size or a PSNR: give a positive number")
