"""The command search: the best mixed recipe of a size, or the smallest of a quality, as a file to keep and edit."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketdiffusion.choices import check_recipe_file, check_wanted
from pocketdiffusion.cli.arguments import read_prompts
from pocketdiffusion.export.mixed import Measured, Search, open_search
from pocketdiffusion.export.reference.prompt_cut import find_cuts
from pocketdiffusion.export.reference.record import Request
from pocketdiffusion.export.survey import Surveys, open_surveys
from pocketdiffusion.export.targets import Artifact
from pocketdiffusion.prompts import FOLDER, numbered
from pocketdiffusion.quantize.recipes import Recipe, write_recipe
from pocketdiffusion.quantize.written import write_whole
from pocketdiffusion.reports.plots import Points, size_plot
from pocketdiffusion.source import Original, open_model

Say = Callable[[str], None]
PROMPTS = FOLDER / "search.txt"


@dataclass(frozen=True)
class Found:
    """What a search wrote, and the points of its plot: recipes of one storage by name, and searched ones. `cut` says
    which search prompts were too long."""

    recipe: Recipe
    measured: Measured
    uniform: Points
    searched: Points
    cut: tuple[str, ...] = ()


def search(
    model: str,
    artifact: Artifact,
    out: Path,
    *,
    budget_mb: float | None = None,
    min_psnr: float | None = None,
    sampler: str | None = None,
    width: int | None = None,
    height: int | None = None,
    revision: str | None = None,
    token: str | None = None,
    allow_unexpected: Sequence[str] = (),
    prompts: Path = PROMPTS,
    workers: int | None = None,
    say: Say = lambda line: None,
) -> Found:
    """Writes the recipe `out` (JSON) for `model` in artifacts such as `artifact`, a plot of sizes beside it (.svg), and
    what was measured on the way (.damages.jsonl), from which a search that was interrupted goes on.

    Either `budget_mb` (MB of 1e6 bytes, of all weights) or `min_psnr` (dB, the median of pictures of the search
    prompts) must be given. `prompts` are the search prompts, one a line. Raises UserError where the input cannot be
    used, and where no recipe is so small or so exact.
    """
    check_wanted(budget_mb, min_psnr)
    check_recipe_file(out)
    requests = search_requests(prompts)
    options: dict[str, Any] = {"revision": revision, "token": token, "allow_unexpected": allow_unexpected, "say": say}
    checkpoint, parts = open_model(model, width=width, height=height, sampler=sampler, **options)
    table = out.with_suffix(".damages.jsonl")
    with open_surveys(checkpoint, parts, requests, file=table, workers=workers, say=say) as surveys:
        opened = open_search(surveys, artifact.format, artifact.profile)
        measured = _choose(opened, budget_mb, min_psnr)
        recipe = opened.recipe(measured)
        write_recipe(out, recipe)
        uniform = {s.storage: opened.uniform(s) for s in opened.storages if s.kind != "float"}
        same_size = {f"of {name}'s size": opened.find(u.nbytes) for name, u in uniform.items()}
        searched = {"chosen": measured, **{name: m for name, m in same_size.items() if m is not None}}
    points = [{n: (m.nbytes / 1e6, m.median_db) for n, m in e.items()} for e in (uniform, searched)]
    cut = find_cuts(checkpoint, [request.prompt for request in requests])
    said = tuple(f"the prompt {prompt!r} is too long: {end!r} was cut off" for prompt, end in cut.items() if end)
    found = Found(recipe, measured, points[0], points[1], said)
    write_whole(out.with_suffix(".svg"), size_plot(found.uniform, found.searched))
    return found


def find_mixed(
    original: Original, artifact: Artifact, budget_mb: float | None, min_psnr: float | None, say: Say
) -> Recipe:
    """The recipe that `search` would write, of an original that is open already."""
    check_wanted(budget_mb, min_psnr)
    with open_surveys(original.checkpoint, original.parts, search_requests(), say=say) as surveys:
        opened = open_search(surveys, artifact.format, artifact.profile)
        return opened.recipe(_choose(opened, budget_mb, min_psnr))


def surveys_of(original: Original, say: Say) -> AbstractContextManager[Surveys]:
    """What the other recipes may ask of an original; nothing is measured before they do."""
    return open_surveys(original.checkpoint, original.parts, search_requests(), say=say)


def search_requests(prompts: Path = PROMPTS) -> list[Request]:
    """The search prompts, each with a seed of its own."""
    return numbered("search", read_prompts(prompts))


def _choose(opened: Search, budget_mb: float | None, min_psnr: float | None) -> Measured:
    if budget_mb is not None:
        return opened.within(round(budget_mb * 1e6))
    assert min_psnr is not None
    return opened.above(min_psnr)
