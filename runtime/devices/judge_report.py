"""A phone's device report beside the host's verdicts: each output of each graph on each unit, judged by the gate's
own floors for the arithmetic that the unit computed in."""

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
    """One output on one unit, or a graph that the unit refused (`output` "", `error` the engine's words).

    `shipped` is whether the bundle ships the graph for that unit; `host_db` the host's own figure, None where the
    bundle states none; `known` what its manifest says of the unit.
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
        """One line for a person: what, where, and how far from the floor."""
        where = f"{self.result.format} {self.result.graph} on {self.result.unit}"
        if self.error is not None:
            said = f"{where} was refused: {self.error}"
        elif not all(each.finite for each in self.result.outputs if each.output == self.output):
            said = f"{where}: {self.output} is not finite"
        else:
            beside = "" if self.host_db is None else f", and the host {self.host_db:.1f} dB"
            said = f"{where}: {self.output} has {self.device_db:.1f} dB, its floor is {self.floor_db:.0f} dB{beside}"
        known = self.known
        return said if known is None or known.status != "bad" or not known.note else f"{said}; known: {known.note}"


@dataclass(frozen=True)
class PictureRow:
    """The whole picture that the phone drew with the files of one format."""

    result: PictureResult
    floor_db: float

    @property
    def passed(self) -> bool:
        return self.result.psnr_db >= self.floor_db

    def describe(self) -> str:
        """One line for a person."""
        return (
            f"the {self.result.format} picture has {self.result.psnr_db:.1f} dB beside the original's, "
            f"its floor is {self.floor_db:.0f} dB"
        )


def judge_report(manifest: Manifest, report: DeviceReport) -> tuple[list[Row], list[PictureRow]]:
    """Return a row for each output on each unit, in the report's order, and one for each picture.

    Raises UserError, naming the field, where the report is of another bundle, names a graph or an output that the
    bundle lacks, or leaves out an output of a graph that was run."""
    if report.runtime_id != manifest.runtime_id:
        raise UserError(
            f"the report is of another bundle, runtime_id {report.runtime_id[:16]}, where this one has "
            f"{manifest.runtime_id[:16]}: let the app run its self-test on this one"
        )
    seen: set[tuple[str, str, str]] = set()
    rows: list[Row] = []
    for number, result in enumerate(report.graphs):
        graph = _graph_of(manifest, result, f"graphs.{number}")
        key = (result.format, result.graph, result.unit)
        if key in seen:
            raise UserError(
                f"the report has {' '.join(key)} twice, the second is graphs.{number}: each unit is named once"
            )
        seen.add(key)
        rows += _rows(manifest, graph, result)
    pictures = []
    for number, picture in enumerate(report.pictures):
        if picture.format not in manifest.graphs:
            raise UserError(f"pictures.{number}.format: the bundle holds no {picture.format} graphs")
        (_, lowest), _ = picture_floors(list(manifest.graphs[picture.format].values()), picture.arithmetic)
        pictures.append(PictureRow(picture, lowest))
    return rows, pictures


def unmeasured(manifest: Manifest, report: DeviceReport) -> list[str]:
    """Return the graphs of the report's formats that it does not have on the unit that they ship for, as "onnx unet on
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
        raise UserError(f"{where}: the bundle holds no {result.format} graph {result.graph}")
    wanted = [] if result.error is not None else sorted(tensor.name for tensor in graph.spec.outputs)
    found = sorted(each.output for each in result.outputs)
    if found != wanted:
        stated = ", ".join(found) or "none"
        raise UserError(
            f"{where}.outputs: {result.format} {result.graph} on {result.unit} has {stated}, not "
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
    """The host's own on the artifact as it ships, None where the bundle has none."""
    found = [v for v in verdicts if (v.subject, v.rung, v.format, v.device) == (subject, graph.recipe, format, "host")]
    return found[-1] if found else None


def _floor(verdicts: Sequence[Verdict], subject: str, graph: Graph, result: UnitResult) -> float:
    """The floor of that output by the rules of the gate on a stand-in for the phone."""
    if graph.floor_db is None and (graph.storage, result.arithmetic) not in FLOORS_DB:
        raise UserError(
            f"the report says that {result.format} {result.graph} computed in {result.arithmetic} on {result.unit}, "
            f"which a file of {graph.storage} without integers does not"
        )
    device = "gpu" if result.unit in ("gpu", "webgpu") else "host"
    scope = replace(scope_of(result.format, graph), arithmetic=result.arithmetic, device=device)
    return check_artifact(scope, graph, verdicts).tolerance.of(subject)
