"""verify --device-report: the results of an app on a phone, next to the verdicts of the host."""

from pathlib import Path

from pocketdiffusion.cli.console import Output
from pocketdiffusion.cli.tables import report_table
from pocketdiffusion.runtime.bundle.bundle import open_bundle, require_proof
from pocketdiffusion.runtime.devices.judge_report import PictureRow, Row, judge_report, unmeasured
from pocketdiffusion.runtime.devices.report import DeviceReport, read_report
from pocketdiffusion.runtime.errors import ProofError


def show_device_report(folder: Path, file: Path, output: Output) -> None:
    """Print the device report `file` next to the verdicts of the bundle `folder`, and a line for each failed result.

    Raise UserError if the report cannot be read or is of another bundle, or the bundle has no proof part. Raise
    ProofError if a graph is refused or under its floor on its compute unit in the bundle, a picture is under its floor,
    a conformance vector failed, or no graph was run on its compute unit."""
    report = read_report(file)
    bundle = open_bundle(folder)
    require_proof(bundle)
    rows, pictures = judge_report(bundle.manifest, report)
    output.print_line(describe_phone(report))
    if report.bundle_id != bundle.manifest.bundle_id:
        output.print_line(f"the phone ran the bundle {report.bundle_id[:16]}, which has the same runtime part")
    output.table(report_table(rows))
    bad: list[Row | PictureRow] = [row for row in rows if not row.passed and row.shipped]
    bad += [picture for picture in pictures if not picture.passed]
    for picture in pictures:
        output.print_line(picture.describe())
    for row in rows:
        if not row.passed:
            aside = "" if row.shipped else " (not the compute unit that the bundle ships for, so it does not count)"
            output.print_line(
                f"UNDER ITS FLOOR: {row.describe()}{aside}"
                if row.error is None
                else f"REFUSED: {row.describe()}{aside}"
            )
    for graph in unmeasured(bundle.manifest, report):
        output.print_line(f"not measured: {graph}, the compute unit that the bundle ships it for")
    vectors = report.conformance
    for name in vectors.failed:
        output.print_line(f"conformance vector FAILED: {name}")
    if bad or vectors.failed:
        count = len(bad) + len(vectors.failed)
        first = bad[0].describe() if bad else f"the conformance vector {vectors.failed[0]} failed"
        raise ProofError(f"{file}: {first}; {count} {'result' if count == 1 else 'results'} failed on the phone")
    shipped = sum(row.shipped for row in rows)
    if not shipped:
        raise ProofError(f"{file}: no graph was run on its compute unit in the bundle: run the self-test there")
    output.print_line(
        f"{file}: {shipped} outputs passed on the compute units of {folder}, {len(vectors.passed)} conformance vectors "
        "passed"
    )


def describe_phone(report: DeviceReport) -> str:
    """Return phone, operating system, app and engines as one line."""
    phone, programs = report.device, [report.os, report.app, *report.engines]
    soc = f" ({phone.soc})" if phone.soc else ""
    return f"{phone.maker} {phone.model}{soc}, {', '.join(f'{each.name} {each.version}' for each in programs)}"
