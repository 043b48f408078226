"""The report of an export: report.json for machines, report.html for people. Times and memory live here alone."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment
from PIL import Image

from pocketdiffusion.export.fitting import Audit
from pocketdiffusion.plots import drift_plot
from pocketdiffusion.runtime.gate import PictureReport
from pocketdiffusion.runtime.manifest import Draft
from pocketdiffusion.runtime.parity import ParityReport
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.trajectory import Trajectory

NEAREST = 10  # results of each graph that the report shows


@dataclass(frozen=True)
class Report:
    """`seconds` is by stage of the export; `peak_mb` the largest resident memory of this process."""

    manifest: Draft
    verdicts: Sequence[ParityReport]
    pictures: Sequence[PictureReport]
    originals: Sequence[Trajectory]
    audits: Sequence[Audit]
    seconds: Mapping[str, float]
    peak_mb: float


def write_report(folder: Path, report: Report) -> None:
    """Writes report/report.json and the self-contained report/report.html below `folder`."""
    (folder / "report").mkdir(exist_ok=True)
    (folder / "report/report.json").write_text(json.dumps(_machine(report), indent=1) + "\n")
    page = (
        Environment(autoescape=True)
        .from_string(_PAGE)
        .render(
            report=report,
            nearest=NEAREST,
            rows=_rows(report),
            sizes=_sizes(folder, report.manifest),
            drift=drift_plot(report.pictures),
        )
    )
    (folder / "report/report.html").write_text(page, encoding="utf-8")


def _machine(report: Report) -> dict[str, Any]:
    return {
        "model": report.manifest.model.model_dump(),
        "target": report.manifest.target.model_dump(),
        "verdicts": [
            {k: _word(v) for k, v in asdict(verdict).items()} | {"passed": verdict.passed}
            for verdict in report.verdicts
        ],
        "pictures": [
            {
                "format": p.format,
                "prompt": p.prompt,
                "psnr_db": _word(p.psnr_db),
                "ssim": p.ssim,
                "drift_db": [_word(db) for db in p.drift_db],
                "first_diverging": p.first_diverging,
            }
            for p in report.pictures
        ],
        "range_audit": [_audit(audit) for audit in report.audits],
        "seconds": {stage: round(seconds, 2) for stage, seconds in report.seconds.items()},
        "peak_mb": round(report.peak_mb),
    }


def _audit(audit: Audit) -> dict[str, Any]:
    return {
        "format": audit.format,
        "graph": audit.graph,
        "results": len(audit.ranges),
        "nearest": [{k: _word(v) for k, v in asdict(r).items()} for r in audit.ranges[:NEAREST]],
        "mends": audit.mends,
        "underflows": [asdict(u) for u in audit.underflows],
        "replayed_db": {v.subject: _word(v.psnr_db) for v in audit.replayed},
    }


def _sizes(folder: Path, manifest: Draft) -> dict[str, float]:
    """MB of 1e6 bytes, by format and graph."""
    return {
        f"{format} {name}": sum((folder / file).stat().st_size for file in graph.files) / 1e6
        for format, graphs in manifest.graphs.items()
        for name, graph in graphs.items()
    }


def _word(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not abs(value) < float("inf") else value


def _rows(report: Report) -> list[dict[str, Any]]:
    originals = {t.prompt: t.picture for t in report.originals}
    return [
        {
            "report": p,
            "original": _data_url(originals[p.prompt]),
            "artifact": _data_url(p.picture),
            "difference": _data_url(_difference(originals[p.prompt], p.picture)),
        }
        for p in report.pictures
    ]


def _difference(a: Array, b: Array) -> Array:
    """The absolute difference, eight times as strong, uint8."""
    levels: Array = np.clip(np.abs(a.astype(int) - b.astype(int)) * 8, 0, 255).astype(np.uint8)
    return levels


def _data_url(picture: Array) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ report.manifest.model.name }} for {{ report.manifest.target.title }}</title>
<style>
body { font: 16px/1.4 system-ui, sans-serif; margin: 1rem auto; max-width: 60rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; display: block; overflow-x: auto; font-size: 14px }
td, th { padding: .2rem .6rem; border-bottom: 1px solid #ddd; text-align: left; white-space: nowrap }
.failed { color: #b00; font-weight: bold } .passed { color: #070 }
figure { margin: 0; display: inline-block; width: 31%; max-width: 128px } figcaption { font-size: 13px }
td:last-child { white-space: normal; min-width: 16rem } svg { max-width: 100%; height: auto }
img { width: 100%; box-sizing: border-box; image-rendering: pixelated; border: 1px solid #ddd }
</style></head><body>
<h1>{{ report.manifest.model.name }} for {{ report.manifest.target.title }}</h1>
<p>{{ report.verdicts | selectattr("passed") | list | length }} of {{ report.verdicts | length }} verdicts passed.
Licence of the model: {{ report.manifest.model.licence }}. Storage is the precision of the weights in the file,
arithmetic that in which the artifact ran here: an fp16 file run in float32 proves its storage only.</p>
<h2>Verdicts</h2>
<table><tr><th><th>subject<th>PSNR dB<th>floor<th>rung<th>format<th>storage<th>arithmetic<th>largest error<th>limit
<th>cases<th>worst case</tr>
{% for v in report.verdicts %}<tr><td class="{{ "passed" if v.passed else "failed" }}">
{{- "passed" if v.passed else "FAILED" }}<td>{{ v.subject }}<td>{{ "%.1f" | format(v.psnr_db) }}
<td>{{ "%.0f" | format(v.floor_db) }}<td>{{ v.rung }}<td>{{ v.format or "-" }}<td>{{ v.storage }}<td>{{ v.arithmetic }}
<td>{{ "%.1e" | format(v.max_abs) }}<td>{{ "%.1e" | format(v.max_abs_limit) }}<td>{{ v.cases }}
<td>{{ v.worst_case }}</tr>
{% endfor %}</table>
<h2>Pictures</h2>
{% for row in rows %}<p><b>{{ row.report.prompt }}</b>, {{ row.report.format }}:
{{ "%.1f" | format(row.report.psnr_db) }} dB,
SSIM {{ "%.4f" | format(row.report.ssim) }}<br>
<figure><img src="{{ row.original }}" alt="original"><figcaption>original, float32</figcaption></figure>
<figure><img src="{{ row.artifact }}" alt="artifact"><figcaption>artifact</figcaption></figure>
<figure><img src="{{ row.difference }}" alt="difference"><figcaption>difference x8</figcaption></figure></p>
{% endfor %}
<h2>Each step</h2>
<p>How far the artifacts' latents are from the original's after each step, free-running: errors of earlier steps stay
in. Under 20 dB the pictures part.</p>
{{ drift | safe }}
<h2>Graphs</h2>
<table><tr><th>graph<th>MB<th>parameters<th>storage<th>arithmetic<th>profile<th>rewrites<th>operators</tr>
{% for format, graphs in report.manifest.graphs.items() %}{% for name, g in graphs.items() %}
<tr><td>{{ format }} {{ name }}<td>{{ "%.1f" | format(sizes[format ~ " " ~ name]) }}
<td>{{ "{:,}".format(g.parameters) }}<td>{{ g.storage }}<td>{{ g.arithmetic }}<td>{{ g.profile }}
<td>{% for k, n in g.rewrites.items() %}{{ n }} {{ k }}<br>{% endfor %}<td>{{ g.ops.values() | sum }}:
{% for op, n in g.ops | dictsort(by="value", reverse=true) %}{{ n }} {{ op }}{{ ", " if not loop.last }}
{%- endfor %}</tr>
{% endfor %}{% endfor %}</table>
{% if report.audits %}<h2>Range audit</h2>
<p>How near the results of each graph, as it was emitted, come to 65504, where float16 ends, and what became of those
that came too near. Replayed: the artifact with the result of every operator rounded to float16, against the original in
float32. Where a phone computes in float32, as onnxruntime does on a CPU, none of this is needed.</p>
{% for a in report.audits %}<h3>{{ a.format }} {{ a.graph }}</h3>
<p>Replayed: {% for v in a.replayed %}{{ v.subject }} {{ "%.1f" | format(v.psnr_db) }} dB{{ ", " if not loop.last }}
{%- endfor %}; {{ a.ranges | length }} results.
{% for mend in a.mends %}<br>Mended: {{ mend }}.{% endfor %}
{% for u in a.underflows %}<br>Stored badly: {{ u.name }}, {{ "%.2g" | format(100 * u.lost) }} % of it becomes zero, its
relative error is {{ "%.1e" | format(u.relative) }}.{% endfor %}</p>
<table><tr><th>operator<th>largest<th>room<th>result</tr>
{% for r in a.ranges[:nearest] %}<tr><td>{{ r.operator }}<td>{{ "%.4g" | format(r.largest) }}
<td>{{ "%.3g" | format(65504 / r.largest) if r.largest else "" }}<td>{{ r.result }}</tr>
{% endfor %}</table>
{% endfor %}{% endif %}
<h2>Time and memory</h2>
<table>{% for stage, seconds in report.seconds.items() %}
<tr><td>{{ stage }}<td>{{ "%.1f" | format(seconds) }} s</tr>{% endfor %}
<tr><td>peak resident memory<td>{{ "%.0f" | format(report.peak_mb) }} MB</tr></table>
</body></html>
"""
