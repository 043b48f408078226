"""The command export."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pocketdiffusion.cli.arguments import parse_size
from pocketdiffusion.cli.console import Output
from pocketdiffusion.cli.extras import needs_export
from pocketdiffusion.cli.options import (
    BUILT_IN,
    AllowUnexpected,
    BudgetMb,
    Force,
    Format,
    Json,
    MinPsnr,
    Model,
    Phone,
    Plan,
    Profile,
    Proof,
    ProofKind,
    Quiet,
    Recipe,
    Report,
    ReportKind,
    Revision,
    Sampler,
    Size,
    SplitUnet,
    Token,
)
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.progress import Progress

if TYPE_CHECKING:
    from pocketdiffusion.choices import ExportOptions
    from pocketdiffusion.export.targets import Target
    from pocketdiffusion.runtime.bundle.bundle import Bundle


def export(
    target: Phone,
    model: Model = BUILT_IN,
    folder: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="The folder to write the bundle to.")
    ] = None,
    recipe: Recipe = None,
    budget_mb: BudgetMb = None,
    min_psnr: MinPsnr = None,
    format: Format = None,
    profile: Profile = None,
    sampler: Sampler = None,
    size: Size = None,
    split_unet: SplitUnet = None,
    revision: Revision = None,
    token: Token = None,
    allow_unexpected: AllowUnexpected = None,
    proof: Proof = ProofKind.FULL,
    report: Report = ReportKind.SHORT,
    force: Force = False,
    plan: Plan = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Export a checkpoint for a phone.

    Every graph and complete pictures are compared with the original before the bundle is written. If a difference is
    above its tolerance, the bundle is kept as DIR.failed."""
    from pocketdiffusion.choices import ExportOptions, check_export, fit_split

    width, height = parse_size(size)
    wanted = ExportOptions(
        model, target, recipe, budget_mb, min_psnr, format, profile, sampler, width, height, revision, split_unet
    )
    wanted, chosen, line = fit_split(wanted, check_export(wanted))
    output = Output(quiet, as_json)
    warn_of_added(chosen, output)
    if line:
        output.warn(line)
    if plan:
        from pocketdiffusion.cli.plan import show_plan

        show_plan(wanted, chosen, proof.value, output)
        return
    check_folder(folder, force)
    assert folder is not None
    with output.show_progress(f"exporting {model} for {target}") as progress:
        exported = export_chosen(wanted, folder, token, allow_unexpected or (), proof, report, progress)
    show_exported(exported, output)


def warn_of_added(chosen: "Target", output: Output) -> None:
    """Warn about a format that the phone's target does not list."""
    from pocketdiffusion.choices import describe_added
    from pocketdiffusion.export.targets import load_target

    if line := describe_added(load_target(chosen.name), chosen):
        output.warn(line)


def export_chosen(
    wanted: "ExportOptions",
    folder: Path,
    token: str | None,
    allow_unexpected: Sequence[str],
    proof: ProofKind,
    report: ReportKind,
    progress: Progress,
) -> "Bundle":
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
        revision=wanted.revision,
        token=token,
        allow_unexpected=allow_unexpected,
        proof="quick" if proof is ProofKind.QUICK else "full",
        report="full" if report is ReportKind.FULL else "short",
        progress=progress,
    )


def check_folder(folder: Path | None, force: bool) -> None:
    """Raise UserError if no bundle can be written to `folder`, or it has an older bundle and `force` is not given."""
    from pocketdiffusion.runtime.bundle.staging import check_output_folder

    if folder is None:
        raise UserError("Missing option '--output' / '-o': name the folder of the bundle to write")
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
