"""Choose the recipe of each artifact and make its plan for each component, before anything is written."""

from collections.abc import Sequence

from pocketdiffusion.export.backends.emission import check_converter, check_layers, check_schemes, check_size
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.matrices import weights_of
from pocketdiffusion.export.mixed_recipe import analyse_original, find_mixed
from pocketdiffusion.export.original import Original
from pocketdiffusion.export.targets import Artifact, Target
from pocketdiffusion.quantize.measure.analysis import SensitivityAnalysis
from pocketdiffusion.quantize.plans import make_plan
from pocketdiffusion.quantize.qparams import Ranges
from pocketdiffusion.quantize.recipe import Recipe, Unmeasured
from pocketdiffusion.quantize.recipe_file import SEARCHED
from pocketdiffusion.quantize.recipes import load_recipe
from pocketdiffusion.quantize.scheme import Plan
from pocketdiffusion.runtime.progress import Progress


def check_recipes(parts: Sequence[Component], artifacts: Sequence[Artifact]) -> None:
    """Raise UserError if a format's converter is not installed, a format cannot store its artifact's recipe, a
    component's weights are too large for one file, or a recipe file is of another model. Call this before drawing."""
    for artifact in artifacts:
        check_converter(artifact.format)
    named = [artifact for artifact in artifacts if artifact.recipe != SEARCHED]
    _check_lowered(parts, named, [load_recipe(artifact.recipe) for artifact in named])


def find_recipes(
    original: Original, target: Target, budget_mb: float | None, min_psnr: float | None, progress: Progress
) -> list[Recipe]:
    """Return the recipe of each artifact. The recipe "mixed" is searched. Raise UserError unless one of
    `budget_mb` (MB of 1e6 bytes) and `min_psnr` (dB) is given for it."""
    return [
        find_mixed(original, artifact, budget_mb, min_psnr, progress)
        if artifact.recipe == SEARCHED
        else load_recipe(artifact.recipe)
        for artifact in target.artifacts
    ]


def plan_artifacts(
    original: Original, artifacts: Sequence[Artifact], recipes: Sequence[Recipe], progress: Progress
) -> list[dict[str, Plan]]:
    """Return, for each artifact, the plan of its recipe by component. Sensitivities and value ranges are measured once
    for all artifacts. Raise UserError, before measuring, if a format cannot store a recipe."""
    _check_lowered(original.parts, artifacts, recipes)
    with analyse_original(original, progress) as analysis:
        return [
            _plan_parts(original, artifact, recipe, analysis, progress)
            for artifact, recipe in zip(artifacts, recipes, strict=True)
        ]


def _plan_parts(
    original: Original, artifact: Artifact, recipe: Recipe, analysis: SensitivityAnalysis, progress: Progress
) -> dict[str, Plan]:
    plans = {}

    def ranges(component: str, bits: int) -> Ranges:
        return original.calibrated(progress).statistics.ranges(component, bits)

    for part in original.parts:
        name = part.spec.name
        progress(f"planning {artifact.format} {name}, {recipe.name}")
        weights, sensitivities = weights_of(part), analysis.of(name, artifact.format, artifact.profile)
        plans[name] = make_plan(recipe, weights, sensitivities, ranges, part.stage)
        check_schemes(plans[name], artifact)
        check_layers(part, plans[name].schemes.values(), artifact)
    return plans


def _check_lowered(parts: Sequence[Component], artifacts: Sequence[Artifact], recipes: Sequence[Recipe]) -> None:
    """Raise UserError if a format cannot store a recipe's plan, computed as if no weight were sensitive."""
    for part in parts:
        name, weights = part.spec.name, weights_of(part)
        for artifact, recipe in zip(artifacts, recipes, strict=True):
            schemes = recipe.plan(weights, Unmeasured(name, artifact.format, artifact.profile, weights))
            plan = Plan(recipe.name, schemes)
            check_schemes(plan, artifact)
            check_layers(part, schemes.values(), artifact)
            check_size(part, plan, artifact)
