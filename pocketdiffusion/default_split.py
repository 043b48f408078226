"""The number of graphs that a UNet becomes if the user gives none: so many that drawing fits the phone's memory."""

from dataclasses import replace

from pocketdiffusion.checkpoint_outline import Outline
from pocketdiffusion.estimates import ExportPlan, plan_export
from pocketdiffusion.export.targets import Target
from pocketdiffusion.memory_fit import APP_SHARE, ONE_AT_A_TIME, SPLITS, app_needs, planned_stages
from pocketdiffusion.quantize.recipe_file import SEARCHED

# Of the phone's memory: 3.0 GB of 8 GiB, this project's goal for Stable Diffusion 1.5. A phone where no number of parts
# reaches it gets what an app can have at most.
GOAL_SHARE = 0.35


def default_split(outline: Outline, target: Target, width: int | None, height: int | None) -> tuple[Target, str]:
    """Return the target with the smallest number of graphs of the UNet with which drawing fits the phone, by the
    estimates of `--plan`, and a line that says why; the target as it is and "" if it fits, nothing fits, or the memory
    of the phone or of the recipe is not known.

    One graph is counted with all graphs of a stage open, several with one open at a time. `width` and `height` in
    pixels, None for the size that the model was trained at. A recipe that names weights by graph decides the number
    itself. Raise UserError if the checkpoint cannot be planned.
    """
    recipes = [artifact.recipe for artifact in target.artifacts]
    if target.memory_mb is None or any(recipe == SEARCHED or recipe.endswith(".json") for recipe in recipes):
        return target, ""
    plan = plan_export(outline, target, width=width, height=height)
    ram = target.memory_mb * 2**20
    needs = {parts: largest_need(plan, replace(target, split_unet=parts)) for parts in (1, *SPLITS)}
    for share in (GOAL_SHARE, APP_SHARE):
        for parts, need in needs.items():
            if need is not None and need <= share * ram:
                return replace(target, split_unet=parts), _describe(target, needs[1], parts, need)
    return target, ""


def largest_need(plan: ExportPlan, target: Target) -> int | None:
    """Return the estimated memory in bytes of an app that draws with the target's graphs, of the format that needs
    most; None if it is not known."""
    low = target.split_unet > 1
    needs = [app_needs(planned_stages(plan, artifact, target), low_memory=low) for artifact in target.artifacts]
    known = [need for need in needs if need is not None]
    return max(known) if len(known) == len(needs) else None


def _describe(target: Target, complete: int | None, parts: int, need: int) -> str:
    if parts == 1 or complete is None:
        return ""
    return (
        f"the UNet is written as {parts} graphs, since drawing needs about {need / 1e6:.0f} MB on {target.title} so, "
        f"{ONE_AT_A_TIME}, and {complete / 1e6:.0f} MB with one; --split-unet 1 writes one"
    )
