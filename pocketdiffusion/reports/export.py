"""The report of an export: report.json for machines, report.html for people. Only these files contain time and memory.

The page begins with the answer; pictures, sizes, memory and time follow, and then the tables.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import Any

from pocketdiffusion.export.backends import find_backend
from pocketdiffusion.export.findings import Findings
from pocketdiffusion.reports.answer import Answer, Pictures, answer_export, pictures_of
from pocketdiffusion.reports.calls import count_calls
from pocketdiffusion.reports.decoding import decoding_of, describe_decoding
from pocketdiffusion.reports.page import group_pictures, render, word, words
from pocketdiffusion.reports.plots import Steps, drift_plot, teacher_forced_db, teacher_forced_plot
from pocketdiffusion.runtime.bundle.manifest import Graph, UnsealedManifest
from pocketdiffusion.runtime.bundle.stage_memory import peak_of
from pocketdiffusion.runtime.bundle.verdicts import Verdict
from pocketdiffusion.runtime.program import model_graph
from pocketdiffusion.runtime.verify.controls import describe_pictures
from pocketdiffusion.runtime.verify.known_units import warn_of_units
from pocketdiffusion.runtime.verify.pictures import PictureReport
from pocketdiffusion.runtime.verify.recording import Trajectory, cases
from pocketdiffusion.runtime.verify.skipped import units_not_run

NEAREST = 10  # results of each graph in the table of value ranges


@dataclass(frozen=True)
class Report:
    """The content of a report. `seconds`: time by stage of the export. `peak_mb`: largest resident memory of this
    process in MB of 1e6 bytes. `findings`: by format and graph; no verdict depends on them."""

    manifest: UnsealedManifest
    verdicts: Sequence[Verdict]
    pictures: Sequence[PictureReport]
    originals: Sequence[Trajectory]
    seconds: Mapping[str, float]
    peak_mb: float
    findings: Mapping[str, Mapping[str, Findings]] = field(default_factory=dict)


@dataclass(frozen=True)
class Figures:
    """Size, memory and time of one format. `mb`: size of its graphs. `memory_mb`: their memory on a phone, counted from
    the files, with one graph at a time and with all graphs loaded, None if it is not known. `seconds`: time of one
    picture on this computer, None if it was not measured."""

    format: str
    mb: float
    memory_mb: tuple[float, float] | None
    seconds: float | None
    pictures: Pictures | None


@dataclass(frozen=True)
class Conclusions:
    """What follows from a report's content, for both of its files. `warnings`: of compute units that are known to be
    bad. `against_controls`: a line for each format. `steps`: PSNR (dB) of the denoiser's output at each step, by format
    and half of guidance. `apple`: how Apple's Swift pipeline differs, None if it cannot open the bundle."""

    answer: Answer
    warnings: Sequence[str]
    against_controls: Sequence[str]
    steps: Steps
    apple: Sequence[str] | None


def write_report(folder: Path, report: Report) -> None:
    """Write report/report.json and the self-contained report/report.html below `folder`."""
    concluded = conclude(report)
    (folder / "report").mkdir(exist_ok=True)
    (folder / "report/report.json").write_text(json.dumps(_machine(report, concluded), indent=1) + "\n")
    shipped, stages, ladder = group_verdicts(report)
    sizes = _sizes(folder, report.manifest)
    page = render(
        "export.html",
        report=report,
        answer=concluded.answer,
        prompts=group_pictures(report.pictures, report.originals),
        figures=_figures(report, sizes),
        shipped=shipped,
        stages=stages,
        ladder=ladder,
        nearest=NEAREST,
        audited=any(found.audit for graphs in report.findings.values() for found in graphs.values()),
        against_controls=concluded.against_controls,
        warnings=concluded.warnings,
        apple=concluded.apple,
        decoding=describe_decoding(report.manifest),
        sizes=sizes,
        teacher_forced=teacher_forced_plot(concluded.steps),
        drift=drift_plot(report.pictures),
        calls=count_calls(report.originals, report.verdicts),
        controls=sum(len(t.controls) for t in report.originals),
    )
    (folder / "report/report.html").write_text(page, encoding="utf-8")


def conclude(report: Report) -> Conclusions:
    """Return the conclusions from a report's content."""
    manifest, controls = report.manifest, [t.controls for t in report.originals]
    warnings, not_run = warn_of_units(manifest), units_not_run(manifest)
    against_controls = list(describe_pictures(report.verdicts, controls))
    graph, output = model_graph(report.originals[0].program)
    calls = [(case.half, case.step or 0) for t in report.originals for case in cases(graph, t)]
    return Conclusions(
        answer=answer_export(manifest, report.verdicts, controls, not_run),
        warnings=warnings,
        against_controls=against_controls,
        steps=teacher_forced_db(report.verdicts, f"{graph}.{output}", calls),
        apple=_apple(manifest),
    )


def group_verdicts(report: Report) -> tuple[list[Verdict], list[Verdict], list[Verdict]]:
    """Return the verdicts in three groups: on shipped artifacts (pictures and final graphs), on the stages of the
    pipeline, and on the rungs between the original and the shipped artifacts."""
    recipes = {(f, name, g.recipe) for f, graphs in report.manifest.graphs.items() for name, g in graphs.items()}
    shipped: list[Verdict] = []
    stages: list[Verdict] = []
    ladder: list[Verdict] = []
    for verdict in report.verdicts:
        final = (verdict.format, verdict.subject.partition(".")[0], verdict.rung) in recipes
        group = shipped if final or verdict.rung == "pictures" else stages if verdict.rung == "stage" else ladder
        group.append(verdict)
    return shipped, stages, ladder


def _figures(report: Report, sizes: Mapping[str, float]) -> list[Figures]:
    pictures = {each.format: each for each in pictures_of(report.verdicts)}
    found = []
    for format, graphs in report.manifest.graphs.items():
        mb = sum(sizes[f"{format} {name}"] for name in graphs)
        seconds = [took for stage, took in report.seconds.items() if stage.endswith(f"{format} pictures")]
        drawn = sum(each.format == format for each in report.pictures)
        each = sum(seconds) / drawn if seconds and drawn else None
        found.append(Figures(format, mb, count_memory(graphs.values()), each, pictures.get(format)))
    return found


def count_memory(graphs: Iterable[Graph]) -> tuple[float, float] | None:
    """Return the memory of graphs on a phone in MB of 1e6 bytes, by `peak_of`: with one graph at a time, and with all
    open at once. None if it is not known for a graph."""
    needs = [graph.memory for graph in graphs]
    low, whole = peak_of(needs, low_memory=True), peak_of(needs, low_memory=False)
    return None if low is None or whole is None else (low / 1e6, whole / 1e6)


def _machine(report: Report, concluded: Conclusions) -> dict[str, Any]:
    return {
        "answer": concluded.answer.sentence,
        "decoding": decoding_of(report.manifest),
        "model": report.manifest.model.model_dump(),
        "target": report.manifest.target.model_dump(),
        "verdicts": [words(asdict(verdict)) | {"passed": verdict.passed} for verdict in report.verdicts],
        "steps": {
            format: {half: list(map(word, heights)) for half, heights in halves.items()}
            for format, halves in concluded.steps.items()
        },
        "pictures": [
            {
                "format": p.format,
                "prompt": p.prompt,
                "psnr_db": word(p.psnr_db),
                "ssim": p.ssim,
                "drift_db": [word(db) for db in p.drift_db],
                "first_diverging": p.first_diverging,
                "controls": words(dict(t.controls)),
            }
            for p, t in zip(report.pictures, cycle(report.originals), strict=False)
        ],
        "unit_warnings": concluded.warnings,
        "apple_differences": concluded.apple,
        "rewrites": {
            format: {name: _findings(found) for name, found in graphs.items()}
            for format, graphs in report.findings.items()
        },
        "seconds": {stage: round(seconds, 2) for stage, seconds in report.seconds.items()},
        "peak_mb": round(report.peak_mb),
        "calls": {
            each.graph: {"original": each.recorded, "checks": dict(each.checks)}
            for each in count_calls(report.originals, report.verdicts)
        },
    }


def _apple(manifest: UnsealedManifest) -> list[str] | None:
    """Return the differences of Apple's Swift pipeline from the model; None if the bundle has no Core ML packages, or
    packages that this pipeline cannot open."""
    found = [find_backend(format).reader_differences(manifest) for format in manifest.graphs]
    return next((differences for differences in found if differences is not None), None)


def _findings(found: Findings) -> Any:
    audit = found.audit and replace(found.audit, ranges=found.audit.ranges[:NEAREST])
    return words(asdict(replace(found, audit=audit)))


def _sizes(folder: Path, manifest: UnsealedManifest) -> dict[str, float]:
    """Return the size of each graph in MB of 1e6 bytes, by "FORMAT GRAPH"."""
    return {
        f"{format} {name}": sum((folder / file).stat().st_size for file in graph.files) / 1e6
        for format, graphs in manifest.graphs.items()
        for name, graph in graphs.items()
    }
