"""The command export."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pocketdiffusion.cli.arguments import parse_bytes, parse_size
from pocketdiffusion.cli.console import Output
from pocketdiffusion.cli.extras import needs_export
from pocketdiffusion.cli.options import (
    BUILT_IN,
    RECORDINGS,
    AllowUnexpected,
    BudgetMb,
    Force,
    Format,
    Json,
    MaxMemory,
    MinPsnr,
    Model,
    Phones,
    Plan,
    Profile,
    Proof,
    ProofKind,
    Quiet,
    Recipe,
    Recordings,
    Report,
    ReportKind,
    Revision,
    Sampler,
    Size,
    SplitUnet,
    Token,
    VaeTiles,
    VaeTileSize,
)
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.progress import Progress

if TYPE_CHECKING:
    from pocketdiffusion.choices import ExportOptions
    from pocketdiffusion.export.targets import Target
    from pocketdiffusion.runtime.bundle.bundle import Bundle


def export(
    target: Phones,
    model: Model = BUILT_IN,
    folder: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="DIR",
            help="The folder of the bundle to write, or, for several phones, of bundles.",
        ),
    ] = None,
    recipe: Recipe = None,
    budget_mb: BudgetMb = None,
    min_psnr: MinPsnr = None,
    format: Format = None,
    profile: Profile = None,
    sampler: Sampler = None,
    size: Size = None,
    split_unet: SplitUnet = None,
    vae_tiles: VaeTiles = None,
    vae_tile_size: VaeTileSize = None,
    revision: Revision = None,
    token: Token = None,
    allow_unexpected: AllowUnexpected = None,
    proof: Proof = ProofKind.FULL,
    recordings: Recordings = RECORDINGS,
    max_memory: MaxMemory = None,
    report: Report = ReportKind.SHORT,
    force: Force = False,
    plan: Plan = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Export a checkpoint for a phone, or for several.

    Every graph and complete pictures are compared with the original before a bundle is written. If a difference is
    above its tolerance, the bundle is kept as DIR.failed."""
    from pocketdiffusion.choices import ExportOptions, check_export, fit_split

    (width, height), limit = parse_size(size), parse_bytes(max_memory)
    sizes = width, height, revision, split_unet, vae_tiles, vae_tile_size
    common = recipe, budget_mb, min_psnr, format, profile, sampler, *sizes
    wanted = [ExportOptions(model, phone, *common) for phone in dict.fromkeys(target)]
    if as_json and len(wanted) > 1:
        raise UserError("--json prints the record of one bundle: give one --target")
    output = Output(quiet, as_json)
    chosen = [check_export(each) for each in wanted]
    for place, each in enumerate(chosen):
        warn_of_added(each, output)
        chosen[place], line = fit_split(model, each, split_unet, width, height)
        wanted[place] = replace(wanted[place], split_unet=chosen[place].split_unet)
        if line:
            output.warn(line)
    if plan:
        show_plans(wanted, chosen, proof, output)
        return
    folders = choose_folders(folder, wanted, force)
    settings = Settings(token, allow_unexpected or (), proof, report, recordings.expanduser(), limit)
    export_each(wanted, folders, settings, output)


def show_plans(wanted: "Sequence[ExportOptions]", chosen: "Sequence[Target]", proof: ProofKind, output: Output) -> None:
    """Print the plan of the export for each phone."""
    from pocketdiffusion.cli.plan import show_plan

    for options, phone in zip(wanted, chosen, strict=True):
        show_plan(options, phone, proof.value, output)


@dataclass(frozen=True)
class Settings:
    """Options of `export` that do not change what is exported."""

    token: str | None
    allow_unexpected: Sequence[str]
    proof: ProofKind
    report: ReportKind
    recordings: Path
    max_memory: int | None  # bytes


def choose_folders(folder: Path | None, wanted: "Sequence[ExportOptions]", force: bool) -> list[Path]:
    """Return the folder of each bundle: `folder` for one, below it for several. Raise UserError as `check_folder`
    does."""
    if folder is None:
        raise UserError("Missing option '--output' / '-o': name the folder of the bundle to write")
    folders = [folder] if len(wanted) == 1 else [folder / each.target for each in wanted]
    if len(wanted) > 1:
        folder.mkdir(parents=True, exist_ok=True)
    for each in folders:
        check_folder(each, force)
    return folders


def export_each(wanted: "Sequence[ExportOptions]", folders: Sequence[Path], settings: Settings, output: Output) -> None:
    """Export for each phone, and print the results. A bundle that fails its proof does not stop the others. Raise
    ProofError at the end if one failed."""
    failed = []
    for options, folder in zip(wanted, folders, strict=True):
        try:
            with output.show_progress(f"exporting {options.model} for {options.target}") as progress:
                exported = export_chosen(options, folder, settings, progress)
        except ProofError as error:
            if len(wanted) == 1:
                raise
            output.warn(f"{options.target}: {error}")
            failed.append(options.target)
            continue
        show_exported(exported, output)
    if failed:
        raise ProofError(f"{len(failed)} of {len(wanted)} bundles failed: {', '.join(failed)}")


def warn_of_added(chosen: "Target", output: Output) -> None:
    """Warn about a format that the phone's target does not list."""
    from pocketdiffusion.choices import describe_added
    from pocketdiffusion.export.targets import load_target

    if line := describe_added(load_target(chosen.name), chosen):
        output.warn(line)


def export_chosen(wanted: "ExportOptions", folder: Path, settings: Settings, progress: Progress) -> "Bundle":
    """Return the new bundle in `folder`. Raise UserError if torch or a converter is not installed, and as
    `build.export` does."""
    progress("loading torch")
    with needs_export():
        from pocketdiffusion import build
    return build.export(
        wanted.model,
        wanted.target,
        folder,
        recipe=wanted.recipe,
        budget_mb=wanted.budget_mb,
        min_psnr=wanted.min_psnr,
        format=wanted.format,
        profile=wanted.profile,
        sampler=wanted.sampler,
        width=wanted.width,
        height=wanted.height,
        split_unet=wanted.split_unet,
        vae_tiles=wanted.vae_tiles,
        vae_tile_size=wanted.vae_tile_size,
        revision=wanted.revision,
        token=settings.token,
        allow_unexpected=settings.allow_unexpected,
        proof="quick" if settings.proof is ProofKind.QUICK else "full",
        report="full" if settings.report is ReportKind.FULL else "short",
        recordings=settings.recordings,
        max_memory=settings.max_memory,
        progress=progress,
    )


def check_folder(folder: Path, force: bool) -> None:
    """Raise UserError if no bundle can be written to `folder`, or it has an older bundle and `force` is not given."""
    from pocketdiffusion.runtime.bundle.staging import check_output_folder

    check_output_folder(folder)
    if not force and folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} has a bundle already: give --force to replace it, or another folder")


def show_exported(bundle: "Bundle", output: Output) -> None:
    """Print the verdicts of a new bundle, the graphs that were not run, and warnings on compute units."""
    from pocketdiffusion.cli.json_output import bundle_record
    from pocketdiffusion.cli.tables import not_run_table, verdict_table
    from pocketdiffusion.memory_fit import warn_of_memory
    from pocketdiffusion.runtime.verify.controls import describe_pictures
    from pocketdiffusion.runtime.verify.known_units import warn_of_units
    from pocketdiffusion.runtime.verify.skipped import units_not_run

    manifest = bundle.manifest
    output.json(lambda: bundle_record(manifest))
    output.table(verdict_table(manifest.verdicts))
    for line in describe_pictures(manifest.verdicts, [golden.controls for golden in manifest.golden]):
        output.print_line(line)
    if skipped := units_not_run(manifest):
        output.table(not_run_table(skipped))
    if manifest.scheduler.replaced:
        default, own = manifest.scheduler.default_sampler, manifest.scheduler.replaced
        output.print_line(f"the bundle draws with {default} instead of the checkpoint's own {own}")
    output.print_line(f"{bundle.folder} is complete, every check passed, bundle_id {manifest.bundle_id[:16]}")
    for line in (*warn_of_units(manifest), *warn_of_memory(manifest)):
        output.warn(line)
