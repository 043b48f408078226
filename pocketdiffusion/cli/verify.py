"""The command verify."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pocketdiffusion.cli.arguments import expand_home
from pocketdiffusion.cli.console import Output
from pocketdiffusion.cli.extras import needs_export
from pocketdiffusion.cli.options import (
    STANDINS,
    AllowUnexpected,
    Device,
    Folder,
    Json,
    Quiet,
    Revision,
    Standins,
    Token,
)
from pocketdiffusion.runtime.errors import UserError

if TYPE_CHECKING:
    from pocketdiffusion.verify import Verified

Against = Annotated[
    str | None,
    typer.Option(
        "--against",
        metavar="MODEL",
        help="The original checkpoint, as for `export`: it is run again, and the bundle is compared with the new "
        "results (needs the extra `export`). By default, the results recorded in the bundle are used.",
    ),
]
OnDevice = Annotated[
    Device,
    typer.Option(
        "--device",
        help="Where the graphs are run: `host` is this machine, the others are stand-ins for a phone. "
        "`pocketdiffusion devices list` describes them and shows which are installed.",
    ),
]
Core = Annotated[
    str | None,
    typer.Option(
        "--core",
        metavar="CPU",
        help="The processor that `--device arm64` emulates, by its name in qemu, such as cortex-a76. By default, "
        "the one that the target names as nearest to the phone's, else cortex-a76.",
    ),
]
DeviceReport = Annotated[
    Path | None,
    typer.Option(
        "--device-report",
        metavar="FILE",
        help="A device report, the JSON file that the app's self-test wrote on a phone. Its results are checked "
        "and shown next to this machine's results in the bundle; no graph is run. Not with --against, "
        "--device or --json.",
    ),
]


def verify(
    bundle: Folder,
    against: Against = None,
    device: OnDevice = Device.HOST,
    core: Core = None,
    limit: Annotated[
        float,
        typer.Option(
            min=1,
            metavar="SECONDS",
            help="The time limit of one call of a graph on a stand-in, in seconds. Only with `--device`.",
        ),
    ] = 300,
    device_report: DeviceReport = None,
    standins: Standins = STANDINS,
    revision: Revision = None,
    token: Token = None,
    allow_unexpected: AllowUnexpected = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Repeat the checks of an export on its bundle.

    The checks cover the hash of every file, every stage of the pipeline, every graph, and complete pictures.

    With `--device` and a stand-in, they cover every graph and one small picture. If DIR is only the runtime part of a
    bundle, they cover the conformance vectors, one recorded call of each graph, and one picture.
    """
    if device is Device.HOST and core is not None:
        raise UserError("--core is the processor that a stand-in emulates: give --device too, or leave it out")
    if against is None and (revision or token or allow_unexpected):
        raise UserError("--revision, --token and --allow-unexpected are for the original: give --against MODEL too")
    output = Output(quiet, as_json)
    if device_report is not None:
        _show_report(bundle, device_report, output, judged=against is not None or device is not Device.HOST)
        return
    from pocketdiffusion.runtime.devices.stamp import find_standin
    from pocketdiffusion.verify import DeviceChoice, Model, check_verified
    from pocketdiffusion.verify import verify as judge_bundle

    folder = standins if device is Device.HOST else expand_home(standins)
    if device is not Device.HOST:
        find_standin(folder, device.value)
    model = None if against is None else Model(against, revision, token, allow_unexpected or ())
    with output.show_progress(f"verifying {bundle}") as progress, needs_export():
        found = judge_bundle(
            bundle, against=model, place=DeviceChoice(device.value, folder, core, limit), progress=progress
        )
    show_verified(found, output)
    check_verified(found)
    show_passed(found, output)


def _show_report(bundle: Path, file: Path, output: Output, judged: bool) -> None:
    """Show a device report. Raise UserError if it is combined with options that run graphs, or with --json."""
    if judged:
        raise UserError(
            "--device-report shows the results of a phone: leave out --against and --device, which run the graphs here"
        )
    if output.as_json:
        raise UserError("--device-report has no --json: the report is a JSON file itself")
    from pocketdiffusion.cli.device_report import show_device_report

    show_device_report(bundle, file, output)


def show_verified(found: "Verified", output: Output) -> None:
    """Print the verdicts, passed or failed, and what was not checked."""
    from pocketdiffusion.cli.json_output import verify_record
    from pocketdiffusion.cli.tables import not_run_table, verdict_table
    from pocketdiffusion.quantize.stated_floors import own_floors
    from pocketdiffusion.runtime.verify.controls import describe_pictures

    output.json(lambda: verify_record(found))
    vectors = [verdict for verdict in found.verdicts if verdict.subject in found.reasons]
    output.table(verdict_table(v for v in found.verdicts if v.subject not in found.reasons or not v.passed))
    if vectors:
        passed = Counter(vector.passed for vector in vectors)[True]
        output.print_line(f"{passed} of {len(vectors)} conformance vectors, computed by the original libraries, passed")
    if found.controls:
        for line in describe_pictures(found.verdicts, found.controls):
            output.print_line(line)
    for recipe in own_floors(found.bundle.manifest):
        output.warn(
            f"the recipe {recipe} is not one of this version's recipes: only the bundle itself states its floors"
        )
    if found.not_judged:
        output.warn(f"the proof part is not installed, so these were not checked: {found.not_judged}")
    if found.skipped:
        output.table(not_run_table(found.skipped))


def show_passed(found: "Verified", output: Output) -> None:
    """Print that every check passed, and warnings on compute units."""
    from pocketdiffusion.runtime.verify.known_units import warn_of_units

    where = " of a quick proof" if found.bundle.manifest.proof_kind == "quick" else ""
    if found.not_judged:
        where = " on its runtime part"
    if found.device != Device.HOST.value:
        where = f" on {found.device}"
    output.print_line(f"{found.bundle.folder} passed all {len(found.verdicts)} checks{where}")
    for line in warn_of_units(found.bundle.manifest):
        output.warn(line)
