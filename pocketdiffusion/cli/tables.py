"""The tables that the commands print."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Protocol, get_args

from rich import box
from rich.table import Column, Table

if TYPE_CHECKING:
    from pocketdiffusion.cli.machine import Finding
    from pocketdiffusion.compare import Compared
    from pocketdiffusion.estimates import PlannedPart
    from pocketdiffusion.export.targets import Target
    from pocketdiffusion.runtime.bundle.manifest import Graph, Manifest
    from pocketdiffusion.runtime.devices.judge_report import Row
    from pocketdiffusion.runtime.graph_spec import TensorSpec
    from pocketdiffusion.runtime.verify.skipped import NotRun


class Judged(Protocol):
    """A verdict, from the gate or from a manifest."""

    @property
    def subject(self) -> str: ...
    @property
    def rung(self) -> str: ...
    @property
    def format(self) -> str | None: ...
    @property
    def storage(self) -> str: ...
    @property
    def arithmetic(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def psnr_db(self) -> float: ...
    @property
    def floor_db(self) -> float: ...
    @property
    def max_abs(self) -> float: ...
    @property
    def max_abs_limit(self) -> float: ...
    @property
    def cases(self) -> int: ...
    @property
    def passed(self) -> bool: ...


def target_table(targets: Iterable[Target]) -> Table:
    """Return a table with one row per phone."""
    table = _table("target", "phone", "SoC", "RAM", "OS (oldest)", "artifacts (format profile recipe)")
    for t in targets:
        artifacts = ", ".join(f"{a.format} {a.profile} {a.recipe}" for a in t.artifacts)
        absent = "any" if t.os == "any" else "not stated"
        ram = f"{t.memory_mb / 1024:.0f} GB" if t.memory_mb else absent
        table.add_row(t.name, t.title, t.soc or absent, ram, t.os_floor or t.os, artifacts)
    return table


def verdict_table(verdicts: Iterable[Judged]) -> Table:
    """Return a table with one row per verdict, in the order of `verdicts`."""
    table = _table("subject", "check", "format", "storage", "arithmetic", "device")
    for number in ("PSNR dB", "floor", "largest error", "limit", "cases"):
        table.add_column(number, justify="right", no_wrap=True)
    table.add_column("verdict")
    table.caption = "check: what was compared with the original; floor: the lowest PSNR that passes (docs/GLOSSARY.md)"
    for v in verdicts:
        table.add_row(
            v.subject,
            v.rung,
            v.format or "-",
            v.storage,
            v.arithmetic,
            v.device,
            f"{v.psnr_db:.1f}",
            f"{v.floor_db:.0f}",
            f"{v.max_abs:.1e}",
            f"{v.max_abs_limit:.1e}",
            str(v.cases),
            "passed" if v.passed else "[bold red]FAILED",
        )
    return table


def report_table(rows: Iterable[Row]) -> Table:
    """Return a table of a device report: one row for each output of each graph on each compute unit."""
    table = _table("graph", "unit", "output", "arithmetic")
    for number in ("floor", "host dB", "device dB", "load s", "first call s", "call s", "peak MB"):
        table.add_column(number, justify="right", no_wrap=True)
    table.add_column("verdict")
    for row in rows:
        result = row.result
        refused = row.error is not None
        table.add_row(
            f"{result.format} {result.graph}",
            f"{result.unit}{', ships' if row.shipped else ''}",
            row.output or "-",
            result.arithmetic,
            "-" if refused else f"{row.floor_db:.0f}",
            "-" if row.host_db is None else f"{row.host_db:.1f}",
            "-" if refused else f"{row.device_db:.1f}",
            *map(_seconds, (result.load_seconds, result.first_call_seconds, result.median_call_seconds)),
            "-" if result.peak_bytes is None else f"{result.peak_bytes / 1e6:.0f}",
            "passed" if row.passed else "[bold red]REFUSED" if refused else "[bold red]UNDER ITS FLOOR",
        )
    return table


def not_run_table(skipped: Iterable[NotRun]) -> Table:
    """Return a table of the graphs that were not run, with reasons."""
    table = _table("not run", "format", "device", "arithmetic", "reason")
    for row in skipped:
        table.add_row(row.subject, row.format, row.device, row.arithmetic, row.reason)
    return table


def size_table(uniform: Mapping[str, tuple[float, float]], searched: Mapping[str, tuple[float, float]]) -> Table:
    """Return a table of recipes in the order of their size: weights in MB, median PSNR of pictures in dB."""
    table = _table("recipe")
    for number in ("MB", "pictures dB"):
        table.add_column(number, justify="right", no_wrap=True)
    rows = [(mb, db, name) for name, (mb, db) in uniform.items()]
    rows += [(mb, db, f"searched, {name}") for name, (mb, db) in searched.items()]
    for mb, db, name in sorted(rows):
        table.add_row(name, f"{mb:.2f}", f"{db:.1f}")
    return table


def plan_table(parts: Iterable[PlannedPart]) -> Table:
    """Return a table with one row for each part of the checkpoint in each format."""
    table = _table("format", "model part", "recipe", title="expected size of the weights")
    for number in ("parameters", "MB in the bundle", "MB in memory"):
        table.add_column(number, justify="right", no_wrap=True)
    for part in parts:
        memory = "-" if part.memory_bytes is None else f"{part.memory_bytes / 1e6:.1f}"
        table.add_row(part.format, part.part, part.recipe, f"{part.parameters:,}", f"{part.nbytes / 1e6:.1f}", memory)
    return table


def machine_table(findings: Iterable[Finding]) -> Table:
    """Return a table of engines, toolchains and stand-ins: the installed version or path, purpose, how to install
    it."""
    table = _table("name", "installed", "used for", "how to install it")
    for finding in findings:
        table.add_row(
            finding.name, finding.found or "[bold]no", finding.purpose, finding.remedy if not finding.found else ""
        )
    return table


def difference_tables(compared: Compared) -> Iterator[Table]:
    """Yield the tables of a comparison: pictures, sizes, the outputs of the graphs, the ladder, the layers that add
    most."""
    yield _picture_table(compared)
    a, b = compared.sides
    table = _table("", "A", "B", title="sizes and times")
    table.add_row("", a.title, b.title)
    table.add_row("format, storage, arithmetic", a.precision, b.precision)
    for what, one, other in (
        ("size of the graphs (MB)", a.mb, b.mb),
        ("peak memory while drawing (MB)", a.peak_mb, b.peak_mb),
    ):
        table.add_row(what, *(f"{mb:.1f}" if mb else "-" for mb in (one, other)))
    if compared.time_ratio is not None:
        table.add_row("processor time of a denoiser call", "1", f"{compared.time_ratio:.2f}")
    yield table
    table = _table("output", title="graphs: B's outputs against A's for the same inputs (teacher-forced)")
    _add_numbers(table, "PSNR (dB)", "largest error", "relative error", "cases")
    table.add_column("worst case")
    for v in compared.difference.graphs:
        table.add_row(
            v.subject, f"{v.psnr_db:.1f}", f"{v.max_abs:.1e}", f"{v.relative:.2e}", str(v.cases), v.worst_case
        )
    yield table
    if compared.ladder:
        table = _table("check", title="B's own export, change by change (the ladder): PSNR against the original (dB)")
        _add_numbers(table, *compared.ladder[0].by_graph)
        for rung in compared.ladder:
            heights = (rung.by_graph.get(graph) for graph in compared.ladder[0].by_graph)
            table.add_row(rung.name, *("-" if db is None else f"{db:.1f}" for db in heights))
        yield table
    if compared.layers:
        yield _layer_table(compared)


def _picture_table(compared: Compared) -> Table:
    difference = compared.difference
    table = _table("prompt", title="pictures: B's against A's, each drawn from the prompt only (free-running)")
    _add_numbers(table, "PSNR (dB)", "SSIM", "worst step (dB)", "worst guided step (dB)", "under 20 dB from step")
    for picture, guided in zip(difference.pictures, difference.guided_db, strict=True):
        table.add_row(
            picture.prompt,
            f"{picture.psnr_db:.1f}",
            f"{picture.ssim:.4f}",
            f"{min(picture.drift_db):.1f}",
            f"{min(guided):.1f}",
            str(picture.first_diverging or "-"),
        )
    return table


def _layer_table(compared: Compared) -> Table:
    table = _table(
        "graph", "layer", title="layers that add most to the relative error: the error added, the largest, and where"
    )
    _add_numbers(table, "added", "largest", "at", f"above {compared.budget_text} from")
    for error in compared.worst:
        over = error.first_over(compared.budget)
        table.add_row(
            error.graph,
            error.module,
            f"{100 * error.added:.2g} %",
            f"{100 * error.largest:.2g} %",
            error.call(error.by_step.index(error.largest) + 1),
            "-" if over is None else error.call(over) or "the start",
        )
    return table


def _add_numbers(table: Table, *columns: str) -> None:
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)


def bundle_tables(manifest: Manifest) -> Iterator[Table]:
    """Yield the tables of a bundle: facts, graphs, memory, tensors, verdicts."""
    model, size = manifest.model, manifest.latents
    facts = _table("", "", title=f"{model.name} for {manifest.target.title}", show_header=False)
    facts.add_row("bundle_id", manifest.bundle_id)
    facts.add_row("runtime_id", manifest.runtime_id)
    facts.add_row("model", f"{model.pipeline}, {model.prediction_type}, licence {model.licence}")
    facts.add_row(
        "picture",
        f"{size.width * size.scale}x{size.height * size.scale}, latents {size.channels}x{size.height}x{size.width}",
    )
    facts.add_row("default sampler", manifest.scheduler.default_sampler)
    defaults = manifest.defaults
    facts.add_row("defaults", f"{defaults.steps} steps, guidance {defaults.guidance:g}, strength {defaults.strength:g}")
    from pocketdiffusion.runtime.bundle.file_table import Role

    for role in get_args(Role):
        sizes = [entry.size for entry in manifest.files.values() if entry.role == role]
        facts.add_row(f"{role} files", f"{len(sizes)}, {sum(sizes) / 1e6:.1f} MB")
    facts.add_row("proof", _describe_proof(manifest))
    if manifest.provenance is not None:
        facts.add_row("exported by", f"{manifest.provenance.exported_by}, Python {manifest.provenance.python}")
    yield facts
    named = [(f"{format} {name}", g) for format, graphs in manifest.graphs.items() for name, g in graphs.items()]
    yield _graph_table(manifest, named)
    yield _peak_table(manifest)
    yield _tensor_table((name, g.spec.inputs, g.spec.outputs) for name, g in named)
    if manifest.has_proof:
        yield verdict_table(manifest.verdicts)


def _describe_proof(manifest: Manifest) -> str:
    proof = manifest.proof
    said = f"{proof.kind}, {'passed' if proof.passed else 'FAILED'}"
    if proof.worst is not None and proof.worst.margin_db is not None:
        said += f", worst {proof.worst.subject}, {proof.worst.margin_db:.1f} dB from its floor"
    return said if manifest.has_proof else f"{said}; proof part not installed"


def _graph_table(manifest: Manifest, named: Iterable[tuple[str, Graph]]) -> Table:
    table = _table("graph")
    for number in ("parameters", "MB", "nodes"):
        table.add_column(number, justify="right", no_wrap=True)
    for column in ("storage", "arithmetic", "compute unit", "profile", "recipe", "rewrites (sites, name)"):
        table.add_column(column)
    for name, g in named:
        mb = sum(manifest.files[path].size for path in g.files) / 1e6
        rewrites = ", ".join(f"{sites} {rewrite}" for rewrite, sites in g.rewrites.items())
        counts = [f"{count:,}" if manifest.has_proof else "-" for count in (g.parameters, sum(g.ops.values()))]
        known = g.units.get(g.compute_unit)
        unit = g.compute_unit if known is None or known.status == "unknown" else f"{g.compute_unit}, {known.status}"
        table.add_row(
            name, counts[0], f"{mb:.1f}", counts[1], g.storage, g.arithmetic, unit, g.profile, g.recipe, rewrites
        )
    return table


def _peak_table(manifest: Manifest) -> Table:
    """Return the memory that drawing from a prompt is predicted to need, by stage, in MB of 1e6 bytes."""
    from pocketdiffusion.runtime.bundle.stage_memory import predict_peaks

    table = _table("memory, predicted")
    for way in ("all graphs open, MB", "one at a time, MB"):
        table.add_column(way, justify="right", no_wrap=True)
    for format, graphs in manifest.graphs.items():
        for stage, peak in predict_peaks(manifest.program, graphs).items():
            sizes = ("-" if size is None else f"{size / 1e6:.1f}" for size in (peak.whole, peak.one_at_a_time))
            table.add_row(f"{format} {stage}", *sizes)
    return table


def model_tables(
    title: str, parts: Sequence[tuple[str, Sequence[TensorSpec], Sequence[TensorSpec], Sequence[tuple[int, ...]], str]]
) -> Iterator[Table]:
    """Yield the tables of a model. Each of `parts`: name, inputs, outputs, shapes of its weights, dtypes of its
    weights."""
    table = _table("component", title=title)
    table.add_column("tensors", justify="right")
    table.add_column("parameters", justify="right")
    table.add_column("stored as")
    for name, _, _, weights, stored in parts:
        table.add_row(name, f"{len(weights):,}", f"{sum(prod(shape) for shape in weights):,}", stored)
    yield table
    yield _tensor_table((name, inputs, outputs) for name, inputs, outputs, _, _ in parts)


def _tensor_table(rows: Iterable[tuple[str, Sequence[TensorSpec], Sequence[TensorSpec]]]) -> Table:
    table = _table("graph", "inputs", "outputs")
    for name, inputs, outputs in rows:
        table.add_row(name, _shapes(inputs), _shapes(outputs))
    return table


def _shapes(tensors: Sequence[TensorSpec]) -> str:
    return "\n".join(rf"{t.name} {t.dtype} \[{', '.join(map(str, t.shape))}]" for t in tensors)


def _table(*columns: str, title: str | None = None, show_header: bool = True) -> Table:
    """Return an empty table. Text that is wider than its column is wrapped."""
    folded = (Column(name, overflow="fold") for name in columns)
    return Table(
        *folded, title=title, title_justify="left", title_style="bold", show_header=show_header, box=box.SIMPLE_HEAD
    )


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 1 else f"{value:.1f}"
