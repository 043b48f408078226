"""The goal of a search for a mixed recipe: a size or a quality."""

from pocketdiffusion.runtime.errors import UserError


def check_goal(budget_mb: float | None, min_psnr: float | None) -> None:
    """Raise UserError unless exactly one is given, as a positive number."""
    given = [value for value in (budget_mb, min_psnr) if value is not None]
    if len(given) != 1:
        raise UserError("the recipe mixed needs exactly one of --budget-mb and --min-median-psnr: give one of them")
    if not 0 < given[0] < float("inf"):
        option, advice = (
            ("--min-median-psnr", "dB, such as 40") if budget_mb is None else ("--budget-mb", "MB, such as 12")
        )
        raise UserError(f"{option} {given[0]:g} is not a positive number: give {advice}")
