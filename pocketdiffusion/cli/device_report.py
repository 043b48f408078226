"""verify --device-report: what an app found on a phone, beside the verdicts of the host."""

from pathlib import Path

from pocketdiffusion.cli.console import Output
from pocketdiffusion.cli.tables import report_table
from pocketdiffusion.runtime.bundle.bundle import open_bundle, require_proof
from pocketdiffusion.runtime.devices.judge_report import PictureRow, Row, judge_report, unmeasured
from pocketdiffusion.runtime.devices.report import DeviceReport, read_report
from pocketdiffusion.runtime.errors import ProofError


def show_device_report(folder: Path, file: Path, output: Output) -> None:
    """Print the device report `file` beside the verdicts of the bundle `folder`, and in words what is under its floor.

    Raises UserError where the report cannot be read or is of another bundle, or the bundle has no proof part;
    ProofError where a graph is refused or under its floor on the unit that the bundle ships it for, a picture is under
    its floor, a conformance vector failed, or no graph was run on the unit that it ships for."""
    report = read_report(file)
    bundle = open_bundle(folder)
    require_proof(bundle)
    rows, pictures = judge_report(bundle.manifest, report)
    output.say(describe_phone(report))
    if report.bundle_id != bundle.manifest.bundle_id:
        output.say(f"it ran the bundle {report.bundle_id[:16]}, whose runtime part is the same as this one's")
    output.table(report_table(rows))
    bad: list[Row | PictureRow] = [row for row in rows if not row.passed and row.shipped]
    bad += [picture for picture in pictures if not picture.passed]
    for picture in pictures:
        output.say(picture.describe())
    for row in rows:
        if not row.passed:
            aside = "" if row.shipped else ": the bundle does not ship it for that unit"
            output.say(
                f"UNDER ITS FLOOR: {row.describe()}{aside}"
                if row.error is None
                else f"REFUSED: {row.describe()}{aside}"
            )
    for graph in unmeasured(bundle.manifest, report):
        output.say(f"not measured: {graph}, the unit that it ships for")
    vectors = report.conformance
    for name in vectors.failed:
        output.say(f"conformance vector FAILED: {name}")
    if bad or vectors.failed:
        count = len(bad) + len(vectors.failed)
        first = bad[0].describe() if bad else f"the conformance vector {vectors.failed[0]} failed"
        raise ProofError(f"{file}: {first}; {count} {'result' if count == 1 else 'results'} failed on the phone")
    shipped = sum(row.shipped for row in rows)
    if not shipped:
        raise ProofError(f"{file}: no graph was run on the unit that the bundle ships it for: run the self-test there")
    output.say(
        f"{file}: {shipped} outputs passed on the units that {folder} ships for, {len(vectors.passed)} conformance "
        "vectors passed"
    )


def describe_phone(report: DeviceReport) -> str:
    """Return phone, system, app and engines in one line."""
    phone, programs = report.device, [report.os, report.app, *report.engines]
    soc = f" ({phone.soc})" if phone.soc else ""
    return f"{phone.maker} {phone.model}{soc}, {', '.join(f'{each.name} {each.version}' for each in programs)}"
