"""The report of an export: report.json for machines, report.html for people. Times and memory live here alone."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment
from PIL import Image

from pocketdiffusion.export.backends import find_backend
from pocketdiffusion.reports.findings import Findings
from pocketdiffusion.reports.plots import drift_plot, forced_db, forced_plot
from pocketdiffusion.runtime.bundle.manifest import Draft
from pocketdiffusion.runtime.bundle.verdicts import Verdict
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.verify.controls import compare_with, describe_pictures
from pocketdiffusion.runtime.verify.known_units import warn_of_units
from pocketdiffusion.runtime.verify.pictures import PictureReport
from pocketdiffusion.runtime.verify.recording import Trajectory

PAGE = Path(__file__).with_name("templates") / "export.html"  # the template
NEAREST = 10  # results of each graph that the range audit shows


@dataclass(frozen=True)
class Report:
    """`seconds` is by stage of the export; `peak_mb` the largest resident memory of this process. `findings` is by
    format and graph."""

    manifest: Draft
    verdicts: Sequence[Verdict]
    pictures: Sequence[PictureReport]
    originals: Sequence[Trajectory]
    seconds: Mapping[str, float]
    peak_mb: float
    findings: Mapping[str, Mapping[str, Findings]] = field(default_factory=dict)


def write_report(folder: Path, report: Report) -> None:
    """Writes report/report.json and the self-contained report/report.html below `folder`."""
    (folder / "report").mkdir(exist_ok=True)
    (folder / "report/report.json").write_text(json.dumps(_machine(report), indent=1) + "\n")
    page = (
        Environment(autoescape=True)
        .from_string(PAGE.read_text(encoding="utf-8"))
        .render(
            report=report,
            nearest=NEAREST,
            audited=any(found.audit for graphs in report.findings.values() for found in graphs.values()),
            rows=picture_rows(report.pictures, report.originals),
            beside=list(describe_pictures(report.verdicts, [t.controls for t in report.originals])),
            warnings=warn_of_units(report.manifest),
            apple=_apple(report.manifest),
            sizes=_sizes(folder, report.manifest),
            forced=forced_plot(report.verdicts, report.originals),
            drift=drift_plot(report.pictures),
        )
    )
    (folder / "report/report.html").write_text(page, encoding="utf-8")


def _machine(report: Report) -> dict[str, Any]:
    return {
        "model": report.manifest.model.model_dump(),
        "target": report.manifest.target.model_dump(),
        "verdicts": [words(asdict(verdict)) | {"passed": verdict.passed} for verdict in report.verdicts],
        "steps": {
            format: {half: list(map(_word, heights)) for half, heights in halves.items()}
            for format, halves in forced_db(report.verdicts, report.originals).items()
        },
        "pictures": [
            {
                "format": p.format,
                "prompt": p.prompt,
                "psnr_db": _word(p.psnr_db),
                "ssim": p.ssim,
                "drift_db": [_word(db) for db in p.drift_db],
                "first_diverging": p.first_diverging,
                "controls": words(dict(t.controls)),
            }
            for p, t in zip(report.pictures, cycle(report.originals), strict=False)
        ],
        "unit_warnings": warn_of_units(report.manifest),
        "apple_differences": _apple(report.manifest),
        "rewrites": {
            format: {name: _findings(found) for name, found in graphs.items()}
            for format, graphs in report.findings.items()
        },
        "seconds": {stage: round(seconds, 2) for stage, seconds in report.seconds.items()},
        "peak_mb": round(report.peak_mb),
    }


def _apple(manifest: Draft) -> list[str] | None:
    """What Apple's Swift pipeline does otherwise than the model; None where the bundle has no Core ML packages, or such
    as that pipeline does not know."""
    found = [find_backend(format).reader_differences(manifest) for format in manifest.graphs]
    return next((differences for differences in found if differences is not None), None)


def _findings(found: Findings) -> Any:
    audit = found.audit and replace(found.audit, ranges=found.audit.ranges[:NEAREST])
    return words(asdict(replace(found, audit=audit)))


def _sizes(folder: Path, manifest: Draft) -> dict[str, float]:
    """MB of 1e6 bytes, by format and graph."""
    return {
        f"{format} {name}": sum((folder / file).stat().st_size for file in graph.files) / 1e6
        for format, graphs in manifest.graphs.items()
        for name, graph in graphs.items()
    }


def words(value: Any) -> Any:
    """Numbers that JSON has no word for, as text, however deep they lie."""
    if isinstance(value, dict):
        return {key: words(each) for key, each in value.items()}
    return [words(each) for each in value] if isinstance(value, list | tuple) else _word(value)


def _word(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not abs(value) < float("inf") else value


def picture_rows(pictures: Sequence[PictureReport], originals: Sequence[Trajectory]) -> list[dict[str, Any]]:
    """Of each picture its report, and as data URLs the original, the artifact's and the difference."""
    wanted = {(t.prompt, t.seed): t.picture for t in originals}
    controls = {(t.prompt, t.seed): t.controls for t in originals}
    keys = [(t.prompt, t.seed) for t in originals] * (len(pictures) // len(originals))
    return [
        {
            "report": p,
            "beside": compare_with(p.psnr_db, controls[key]),
            "original": _data_url(wanted[key]),
            "artifact": _data_url(p.picture),
            "difference": _data_url(_difference(wanted[key], p.picture)),
        }
        for p, key in zip(pictures, keys, strict=True)
    ]


def _difference(a: Array, b: Array) -> Array:
    """The absolute difference, eight times as strong, uint8."""
    levels: Array = np.clip(np.abs(a.astype(int) - b.astype(int)) * 8, 0, 255).astype(np.uint8)
    return levels


def _data_url(picture: Array) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
