"""What is decided before anything is written: the recipe of each artifact, and its plan for each component."""

from collections.abc import Callable

from pocketdiffusion.export.backends import check_lowered
from pocketdiffusion.export.planned import plan_of
from pocketdiffusion.export.targets import Artifact, Target
from pocketdiffusion.original import Original
from pocketdiffusion.quantize.recipes import Recipe, load_recipe
from pocketdiffusion.quantize.scheme import Plan
from pocketdiffusion.quantize.spans import Span
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.search import find_mixed, surveys_of

Say = Callable[[str], None]


def plan_parts(original: Original, artifact: Artifact, recipe: Recipe, say: Say) -> dict[str, Plan]:
    """What `recipe` decides for each component. Raises UserError where the artifact's format cannot hold it."""
    plans = {}

    def spans(component: str, bits: int) -> tuple[dict[str, Span], dict[str, Span]]:
        say("calibrating")
        return original.observed.spans(component, bits)

    with surveys_of(original, say) as surveys:
        for part in original.parts:
            name = part.spec.name
            say(f"planning {artifact.format} {name}, {recipe.name}")
            plans[name] = plan_of(part, recipe, surveys.of(name, artifact.format, artifact.profile), spans)
            check_lowered(plans[name], artifact)
    return plans


def find_recipes(
    original: Original, target: Target, budget_mb: float | None, min_psnr: float | None, say: Say
) -> list[Recipe]:
    """That of each artifact, found by a search where it is "mixed". Raises UserError where `budget_mb` or `min_psnr`
    is given for another."""
    searched = [artifact.recipe == "mixed" for artifact in target.artifacts]
    if (budget_mb, min_psnr) != (None, None) and not any(searched):
        raise UserError("--budget-mb and --min-psnr are for a recipe that is searched: give --recipe mixed")
    return [
        find_mixed(original, artifact, budget_mb, min_psnr, say)
        if artifact.recipe == "mixed"
        else load_recipe(artifact.recipe)
        for artifact in target.artifacts
    ]
