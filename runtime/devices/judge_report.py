"""Judge a phone's device report: each output of each graph on each unit, by the gate's floors for the arithmetic of the
unit, shown with the host's verdicts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pocketdiffusion.runtime.bundle.graph_needs import Unit
from pocketdiffusion.runtime.bundle.manifest import Graph, Manifest
from pocketdiffusion.runtime.bundle.verdicts import Verdict
from pocketdiffusion.runtime.devices.report import DeviceReport, PictureResult, UnitResult
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.verify.check import scope_of
from pocketdiffusion.runtime.verify.tolerances import FLOORS_DB, check_artifact, picture_floors


@dataclass(frozen=True)
class Row:
    """One output on one unit, or a graph that the unit refused (`output` "", `error` the engine's message).

    `shipped`: the bundle ships the graph for that unit. `host_db`: the host's PSNR, None if the bundle states none.
    `known`: the manifest's entry on the unit.
    """

    result: UnitResult
    output: str
    floor_db: float
    host_db: float | None
    device_db: float
    shipped: bool
    known: Unit | None = None

    @property
    def error(self) -> str | None:
        return self.result.error

    @property
    def passed(self) -> bool:
        finite = all(each.finite for each in self.result.outputs if each.output == self.output)
        return self.error is None and finite and self.device_db >= self.floor_db

    def describe(self) -> str:
        """Return one line for a person: output, unit, PSNR and floor."""
        where = f"{self.result.format} {self.result.graph} on {self.result.unit}"
        if self.error is not None:
            said = f"{where} was refused: {self.error}"
        elif not all(each.finite for each in self.result.outputs if each.output == self.output):
            said = f"{where}: {self.output} is not finite"
        else:
            host = "" if self.host_db is None else f", and the host {self.host_db:.1f} dB"
            said = f"{where}: {self.output} has {self.device_db:.1f} dB, its floor is {self.floor_db:.0f} dB{host}"
        known = self.known
        return said if known is None or known.status != "bad" or not known.note else f"{said}; known: {known.note}"


@dataclass(frozen=True)
class PictureRow:
    """The complete picture that the phone drew with the files of one format."""

    result: PictureResult
    floor_db: float

    @property
    def passed(self) -> bool:
        return self.result.psnr_db >= self.floor_db

    def describe(self) -> str:
        """Return one line for a person."""
        return (
            f"the {self.result.format} picture has {self.result.psnr_db:.1f} dB against the original's, "
            f"its floor is {self.floor_db:.0f} dB"
        )


def judge_report(manifest: Manifest, report: DeviceReport) -> tuple[list[Row], list[PictureRow]]:
    """Return a row for each output on each unit, in the report's order, and one for each picture.

    Raise UserError, which names the field, if the report is of another bundle, names a graph or an output that the
    bundle does not have, or has no result for an output of a graph that was run."""
    if report.runtime_id != manifest.runtime_id:
        raise UserError(
            f"the report is of another bundle, runtime_id {report.runtime_id[:16]}, and this one has "
            f"{manifest.runtime_id[:16]}: let the app run its self-test on this one"
        )
    seen: set[tuple[str, str, str]] = set()
    rows: list[Row] = []
    for number, result in enumerate(report.graphs):
        graph = _graph_of(manifest, result, f"graphs.{number}")
        key = (result.format, result.graph, result.unit)
        if key in seen:
            raise UserError(
                f"the report has {' '.join(key)} twice, the second is graphs.{number}: each unit must be there once"
            )
        seen.add(key)
        rows += _rows(manifest, graph, result)
    pictures = []
    for number, picture in enumerate(report.pictures):
        if picture.format not in manifest.graphs:
            raise UserError(
                f"the report's pictures.{number}.format is {picture.format}, and the bundle has no such graphs: verify "
                "the bundle that the app tested"
            )
        (_, lowest), _ = picture_floors(list(manifest.graphs[picture.format].values()), picture.arithmetic)
        pictures.append(PictureRow(picture, lowest))
    return rows, pictures


def unmeasured(manifest: Manifest, report: DeviceReport) -> list[str]:
    """Return the graphs of the report's formats without a result on the unit that they ship for, as "onnx unet on
    npu"."""
    measured = {(result.format, result.graph, result.unit) for result in report.graphs}
    return [
        f"{format} {name} on {graph.compute_unit}"
        for format in dict.fromkeys(result.format for result in report.graphs)
        for name, graph in manifest.graphs[format].items()
        if (format, name, graph.compute_unit) not in measured
    ]


def _graph_of(manifest: Manifest, result: UnitResult, where: str) -> Graph:
    graph = manifest.graphs.get(result.format, {}).get(result.graph)
    if graph is None:
        raise UserError(
            f"the report's {where} is the {result.format} graph {result.graph}, which the bundle does not have: verify "
            "the bundle that the app tested"
        )
    wanted = [] if result.error is not None else sorted(tensor.name for tensor in graph.spec.outputs)
    found = sorted(each.output for each in result.outputs)
    if found != wanted:
        stated = ", ".join(found) or "none"
        raise UserError(
            f"the report's {where}.outputs: {result.format} {result.graph} on {result.unit} has {stated}, not "
            f"{', '.join(wanted) or 'none, since there is an error'}"
        )
    return graph


def _rows(manifest: Manifest, graph: Graph, result: UnitResult) -> Iterator[Row]:
    known, shipped = graph.units.get(result.unit), result.unit == graph.compute_unit
    if result.error is not None:
        yield Row(result, "", 0.0, None, 0.0, shipped, known)
    for each in result.outputs:
        subject = f"{result.graph}.{each.output}"
        own = _verdict(manifest.verdicts, subject, result.format, graph)
        floor = _floor(manifest.verdicts, subject, graph, result)
        yield Row(result, each.output, floor, None if own is None else own.psnr_db, each.psnr_db, shipped, known)


def _verdict(verdicts: Sequence[Verdict], subject: str, format: str, graph: Graph) -> Verdict | None:
    """Return the host's verdict on the artifact as it ships, None if the bundle has none."""
    found = [v for v in verdicts if (v.subject, v.rung, v.format, v.device) == (subject, graph.recipe, format, "host")]
    return found[-1] if found else None


def _floor(verdicts: Sequence[Verdict], subject: str, graph: Graph, result: UnitResult) -> float:
    """Return the floor of an output in dB, by the rules of the gate on a stand-in. Raise UserError if a graph of this
    storage cannot compute in the report's arithmetic."""
    if graph.floor_db is None and (graph.storage, result.arithmetic) not in FLOORS_DB:
        raise UserError(
            f"the report states arithmetic {result.arithmetic} for {result.format} {result.graph} on "
            f"{result.unit}, which is not possible for a file with {graph.storage} weights: correct the app that "
            "wrote the report"
        )
    scope = replace(scope_of(result.format, graph), arithmetic=result.arithmetic, unit=result.unit)
    return check_artifact(scope, graph, verdicts).tolerance.of(subject)
