"""The command export."""

from collections.abc import Sequence
from dataclasses import replace
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
    from pocketdiffusion.choices import ExportOptions

    sizes = (*parse_size(size), split_unet, vae_tiles, vae_tile_size)
    options = ExportOptions(recipe, budget_mb, min_psnr, format, profile, sampler, *sizes, revision, token)
    options = replace(
        options,
        allow_unexpected=allow_unexpected or (),
        proof="quick" if proof is ProofKind.QUICK else "full",
        recordings=recordings.expanduser(),
        max_memory=parse_bytes(max_memory),
        report="full" if report is ReportKind.FULL else "short",
    )
    phones = list(dict.fromkeys(target))
    if as_json and len(phones) > 1:
        raise UserError("--json prints the record of one bundle: give one --target")
    output = Output(quiet, as_json)
    chosen = [choose_phone(model, phone, options, output) for phone in phones]
    if plan:
        show_plans(model, chosen, options, output)
        return
    export_each(model, chosen, choose_folders(folder, phones, force), options, output)


def choose_phone(model: str, phone: str, options: "ExportOptions", output: Output) -> "Target":
    """Return the phone's target as the options choose it, with as many graphs of the UNet as fit the phone. Warn about
    a format that the target does not list, and of a UNet that is split."""
    from pocketdiffusion.choices import check_export, fit_split

    chosen = check_export(model, phone, options)
    warn_of_added(chosen, output)
    fitted, line = fit_split(model, chosen, options.split_unet, options.width, options.height)
    if line:
        output.warn(line)
    return fitted


def show_plans(model: str, chosen: "Sequence[Target]", options: "ExportOptions", output: Output) -> None:
    """Print the plan of the export for each phone."""
    from pocketdiffusion.cli.plan import show_plan

    for phone in chosen:
        show_plan(model, phone, options, output)


def choose_folders(folder: Path | None, phones: Sequence[str], force: bool) -> list[Path]:
    """Return the folder of each bundle: `folder` for one, below it for several. Raise UserError as `check_folder`
    does."""
    if folder is None:
        raise UserError("Missing option '--output' / '-o': name the folder of the bundle to write")
    folders = [folder] if len(phones) == 1 else [folder / phone for phone in phones]
    if len(phones) > 1:
        folder.mkdir(parents=True, exist_ok=True)
    for each in folders:
        check_folder(each, force)
    return folders


def export_each(
    model: str, chosen: "Sequence[Target]", folders: Sequence[Path], options: "ExportOptions", output: Output
) -> None:
    """Export for each phone, its UNet in as many graphs as were chosen for it, and print the results. A bundle that
    fails its proof does not stop the others. Raise ProofError at the end if one failed, and UserError if torch or a
    converter is not installed."""
    failed = []
    for phone, folder in zip(chosen, folders, strict=True):
        try:
            with output.show_progress(f"exporting {model} for {phone.name}") as progress:
                progress("loading torch")
                with needs_export():
                    from pocketdiffusion import build
                own = replace(options, split_unet=phone.split_unet)
                exported = build.export(model, phone.name, folder, own, progress)
        except ProofError as error:
            if len(chosen) == 1:
                raise
            output.warn(f"{phone.name}: {error}")
            failed.append(phone.name)
            continue
        show_exported(exported, output)
    if failed:
        raise ProofError(f"{len(failed)} of {len(chosen)} bundles failed: {', '.join(failed)}")


def warn_of_added(chosen: "Target", output: Output) -> None:
    """Warn about a format that the phone's target does not list."""
    from pocketdiffusion.choices import describe_added
    from pocketdiffusion.export.targets import load_target

    if line := describe_added(load_target(chosen.name), chosen):
        output.warn(line)


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
