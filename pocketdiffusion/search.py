"""The command search: find the best mixed recipe of a size, or the smallest of a quality, and write it to a file."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketdiffusion.choices import ExportOptions, one_artifact
from pocketdiffusion.chosen_model import open_chosen
from pocketdiffusion.export.mixed_recipe import choose_mixed, open_mixed
from pocketdiffusion.export.prompts import FOLDER, numbered
from pocketdiffusion.export.quantization import analyse
from pocketdiffusion.export.reference.prompt_cut import find_cuts
from pocketdiffusion.export.reference.record import Request
from pocketdiffusion.export.targets import Target
from pocketdiffusion.files import check_recipe_file, check_replaceable, read_prompts
from pocketdiffusion.quantize.mixed_precision.goal import check_goal
from pocketdiffusion.quantize.mixed_precision.search import Measured
from pocketdiffusion.quantize.recipe import Recipe
from pocketdiffusion.quantize.recipe_file import write_recipe
from pocketdiffusion.quantize.written import write_complete
from pocketdiffusion.reports.plots import Points, size_plot
from pocketdiffusion.runtime.bundle.staging import scratch_next_to
from pocketdiffusion.runtime.progress import Progress

PROMPTS = FOLDER / "search.txt"
PLOT, TABLE = ".svg", ".sensitivity.jsonl"  # suffixes of the files that are written next to the recipe
PLOT_MARK = "<!-- written by pocketdiffusion search -->"  # the first line of a plot


@dataclass(frozen=True)
class Found:
    """The recipe that a search wrote, and the points of its plot: recipes with one storage, by name, and searched
    ones. `truncated`: a line for each search prompt that was too long."""

    recipe: Recipe
    measured: Measured
    uniform: Points
    searched: Points
    truncated: tuple[str, ...] = ()


def search(
    model: str,
    target: Target,
    out: Path,
    options: ExportOptions,
    *,
    prompts: Path = PROMPTS,
    workers: int | None = None,
    progress: Progress = lambda line: None,
) -> Found:
    """Write three files: the recipe `out` (JSON) for `model` in the artifacts of `target`, as `check_export` returns
    it, a plot of sizes next to it (.svg), and the sensitivities (.sensitivity.jsonl), from which an interrupted search
    continues.

    The options are those of the export that will use the recipe. Either `budget_mb` (size of all weights in MB of 1e6
    bytes) or `min_psnr` (median PSNR of the search prompts' pictures in dB) must be given. `prompts`: a text file, one
    prompt per line. Raises UserError if the target has several formats, if the input cannot be used, or if no recipe is
    small or precise enough.
    """
    check_goal(options.budget_mb, options.min_psnr)
    artifact = one_artifact(target)
    check_outputs(out)
    requests = search_requests(prompts)
    checkpoint, parts = open_chosen(model, target, options, progress)
    table = out.with_suffix(TABLE)
    with (
        scratch_next_to(out),
        analyse(checkpoint, parts, requests, file=table, workers=workers, progress=progress) as analysis,
    ):
        opened = open_mixed(analysis, artifact)
        measured = choose_mixed(opened, options.budget_mb, options.min_psnr)
        recipe = opened.recipe(measured)
        write_recipe(out, recipe)
        uniform = {s.storage: opened.uniform(s) for s in opened.storages if s.kind != "float"}
        same_size = {f"of {name}'s size": opened.find(u.nbytes) for name, u in uniform.items()}
        searched = {"chosen": measured, **{name: m for name, m in same_size.items() if m is not None}}
    points = [{n: (m.nbytes / 1e6, m.median_db) for n, m in e.items()} for e in (uniform, searched)]
    cut = find_cuts(checkpoint, [request.prompt for request in requests])
    cuts = tuple(f"the prompt {prompt!r} is too long: {end!r} was cut off" for prompt, end in cut.items() if end)
    found = Found(recipe, measured, points[0], points[1], cuts)
    write_complete(out.with_suffix(PLOT), f"{PLOT_MARK}\n{size_plot(found.uniform, found.searched)}")
    return found


def search_requests(prompts: Path = PROMPTS) -> list[Request]:
    """Return the search prompts, each as a Request with its own seed."""
    return numbered("search", read_prompts(prompts))


def check_outputs(out: Path) -> None:
    """Raise UserError if a search cannot write the recipe `out`, or if the recipe, its plot or its table would
    replace a file that no search wrote."""
    check_recipe_file(out)
    check_replaceable(out, _is_recipe, "recipe")
    check_replaceable(out.with_suffix(PLOT), _is_plot, "plot of a search")
    check_replaceable(out.with_suffix(TABLE), _is_table, "table of a search")


def _is_recipe(file: Path) -> bool:
    """Return True if `file` has the form of a recipe, of any model."""
    content = _json(file.read_bytes())
    return isinstance(content, dict) and {"name", "floors", "schemes"} <= content.keys()


def _is_plot(file: Path) -> bool:
    return file.read_bytes().startswith(PLOT_MARK.encode())


def _is_table(file: Path) -> bool:
    header = _json(file.read_bytes().partition(b"\n")[0])
    return isinstance(header, dict) and header.get("table") == "sensitivity"


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None
