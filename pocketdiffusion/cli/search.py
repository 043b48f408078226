"""The command search."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Annotated

import typer

from pocketdiffusion.cli.arguments import parse_size
from pocketdiffusion.cli.completion import complete_formats
from pocketdiffusion.cli.console import Output
from pocketdiffusion.cli.export import warn_of_added
from pocketdiffusion.cli.extras import needs_export
from pocketdiffusion.cli.options import (
    BUILT_IN,
    AllowUnexpected,
    Json,
    Model,
    Phone,
    Profile,
    Prompts,
    Quiet,
    Revision,
    Sampler,
    Size,
    SplitUnet,
    Token,
    VaeTiles,
    VaeTileSize,
)

if TYPE_CHECKING:
    from pocketdiffusion.search import Found

SearchedFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help="The format that the recipe is for. Required if the phone's target has several formats. "
        "`pocketdiffusion list formats` lists all formats.",
        autocompletion=complete_formats,
    ),
]
BudgetMb = Annotated[
    float | None,
    typer.Option(
        "--budget-mb",
        metavar="MB",
        help="The upper limit of the total size of all weights, in MB (1e6 bytes). The search needs either this or "
        "--min-median-psnr.",
    ),
]
MinMedianPsnr = Annotated[
    float | None,
    typer.Option(
        "--min-median-psnr",
        metavar="DB",
        help="The lowest median PSNR that the pictures may have, in dB. The search needs either this or --budget-mb.",
    ),
]


def search(
    target: Phone,
    file: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The JSON file to write the recipe to.")],
    model: Model = BUILT_IN,
    budget_mb: BudgetMb = None,
    min_psnr: MinMedianPsnr = None,
    format: SearchedFormat = None,
    profile: Profile = None,
    prompts: Prompts = None,
    sampler: Sampler = None,
    size: Size = None,
    split_unet: SplitUnet = None,
    vae_tiles: VaeTiles = None,
    vae_tile_size: VaeTileSize = None,
    revision: Revision = None,
    token: Token = None,
    allow_unexpected: AllowUnexpected = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Search for the best mixed-precision recipe.

    The recipe has the best pictures for a size (--budget-mb), or the smallest size for a quality (--min-median-psnr).
    Use it with `export --recipe FILE`.

    An interrupted search continues if the same command is run again.
    """
    from pocketdiffusion.choices import ExportOptions, check_export, one_artifact
    from pocketdiffusion.files import check_recipe_file
    from pocketdiffusion.quantize.recipe_file import SEARCHED

    width, height = parse_size(size)
    parts = (width, height, split_unet, vae_tiles, vae_tile_size)
    options = ExportOptions(SEARCHED, budget_mb, min_psnr, format, profile, sampler, *parts, revision, token)
    options = replace(options, allow_unexpected=allow_unexpected or ())
    chosen = check_export(model, target, options)
    one_artifact(chosen)
    check_recipe_file(file)
    warn_of_added(chosen, output := Output(quiet, as_json))
    with output.show_progress(f"searching for the best recipe of {model} for {target}") as progress:
        progress("loading torch")
        with needs_export():
            from pocketdiffusion import search as searching
        found = searching.search(model, chosen, file, options, prompts=prompts or searching.PROMPTS, progress=progress)
    given = {"--format": format, "--profile": profile, "--sampler": sampler, "--size": size, "--revision": revision}
    sizes = {"--split-unet": split_unet, "--vae-tile-size": vae_tile_size}
    given |= {"--vae-tiles": vae_tiles, **{name: str(size) for name, size in sizes.items() if size is not None}}
    show_found(file, found, export_command(model, target, file, given, allow_unexpected or ()), output)


def show_found(file: Path, found: "Found", command: str, output: Output) -> None:
    """Print the sizes and qualities that the search found, and the `command` that exports with the new recipe."""
    from pocketdiffusion.cli.json_output import search_record
    from pocketdiffusion.cli.tables import size_table

    output.json(lambda: search_record(file, found))
    output.table(size_table(found.uniform, found.searched))
    for line in found.truncated:
        output.warn(line)
    output.print_line(
        f"{file}: {found.measured.nbytes / 1e6:.2f} MB of weights, median PSNR of the pictures "
        f"{found.measured.median_db:.1f} dB"
    )
    output.print_line(f"the plot is {file.with_suffix('.svg')}; to export with this recipe: {command}")


def export_command(
    model: str, target: str, recipe: Path, given: Mapping[str, str | None], allowed: Sequence[str]
) -> str:
    """Return the command line that exports with the recipe file and the same options as the search. `given`: value by
    option, None if the option was not given."""
    options = [word for option, value in given.items() if value is not None for word in (option, value)]
    options += [word for pattern in allowed for word in ("--allow-unexpected", pattern)]
    folder = str(recipe.with_suffix(""))
    command = ["export", model, "--target", target, "--recipe", str(recipe), *options, "-o", folder]
    return f"pocketdiffusion {join(command)}"
