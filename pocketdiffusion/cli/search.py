"""The command search."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import join
from typing import Annotated

import typer

from pocketdiffusion.cli.arguments import parse_size
from pocketdiffusion.cli.console import Output
from pocketdiffusion.cli.extras import needs_export
from pocketdiffusion.cli.options import (
    BUILT_IN,
    AllowUnexpected,
    BudgetMb,
    Format,
    Json,
    MinPsnr,
    Model,
    Phone,
    Profile,
    Prompts,
    Quiet,
    Revision,
    Sampler,
    Size,
    Token,
)


def search(
    target: Phone,
    file: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The recipe to write, a JSON file.")],
    model: Model = BUILT_IN,
    budget_mb: BudgetMb = None,
    min_psnr: MinPsnr = None,
    format: Format = None,
    profile: Profile = None,
    prompts: Prompts = None,
    sampler: Sampler = None,
    size: Size = None,
    revision: Revision = None,
    token: Token = None,
    allow_unexpected: AllowUnexpected = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Search the best mixed recipe.

    It is the best of a size (--budget-mb) or the smallest of a quality (--min-psnr), for `export --recipe FILE`.

    A search that was interrupted goes on from where it was when the same command is given again.
    """
    from pocketdiffusion.choices import Wanted, check_export, check_recipe_file, one_artifact
    from pocketdiffusion.quantize.recipe_file import SEARCHED

    width, height = parse_size(size)
    wanted = Wanted(model, target, SEARCHED, budget_mb, min_psnr, format, profile, sampler, width, height, revision)
    artifact = one_artifact(check_export(wanted))
    check_recipe_file(file)
    output = Output(quiet, as_json)
    with output.progress(f"searching a recipe of {model} for {target}") as progress:
        progress("loading torch")
        with needs_export():
            from pocketdiffusion import search as searching
        found = searching.search(
            model,
            artifact,
            file,
            budget_mb=budget_mb,
            min_psnr=min_psnr,
            sampler=sampler,
            width=width,
            height=height,
            revision=revision,
            token=token,
            allow_unexpected=allow_unexpected or (),
            prompts=prompts or searching.PROMPTS,
            progress=progress,
        )
    from pocketdiffusion.cli.json_output import search_record
    from pocketdiffusion.cli.tables import size_table

    output.json(lambda: search_record(file, found))
    output.table(size_table(found.uniform, found.searched))
    for line in found.cut:
        output.warn(line)
    output.say(f"{file}: {found.measured.nbytes / 1e6:.2f} MB, pictures' median {found.measured.median_db:.1f} dB")
    given = {"--format": format, "--profile": profile, "--sampler": sampler, "--size": size, "--revision": revision}
    command = export_command(model, target, file, given, allow_unexpected or ())
    output.say(f"the plot is {file.with_suffix('.svg')}; now: {command}")


def export_command(
    model: str, target: str, recipe: Path, given: Mapping[str, str | None], allowed: Sequence[str]
) -> str:
    """Return the command line that exports with the recipe file, with the options that the search was given."""
    options = [word for option, value in given.items() if value is not None for word in (option, value)]
    options += [word for pattern in allowed for word in ("--allow-unexpected", pattern)]
    folder = str(recipe.with_suffix(""))
    command = ["export", model, "--target", target, "--recipe", str(recipe), *options, "-o", folder]
    return f"pocketdiffusion {join(command)}"
