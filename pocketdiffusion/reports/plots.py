"""The report's plots, as SVG to be put into a page: drawn with matplotlib, text left as text."""

import io
from collections.abc import Mapping, Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pocketdiffusion.export.checks.layer_errors import LayerError
from pocketdiffusion.runtime.bundle.verdicts import Verdict
from pocketdiffusion.runtime.engines import engine_names
from pocketdiffusion.runtime.program import model_graph
from pocketdiffusion.runtime.verify.pictures import PictureReport
from pocketdiffusion.runtime.verify.recording import Trajectory, cases

CEILING_DB = 160.0  # float32 itself ends near here; equal latents would lie at infinity
_LEAST = 1e-7  # of what a logarithmic axis shows
_COLOURS = dict(zip(engine_names(), ("#d62728", "#1f77b4", "#2ca02c"), strict=False))  # of each format
_DASHES = ("-", "--", ":", "-.")


def forced_db(verdicts: Sequence[Verdict], originals: Sequence[Trajectory]) -> dict[str, dict[str, tuple[float, ...]]]:
    """PSNR (dB) of what the sampler gets at each step, as a UNet gives it, teacher-forced, the worst prompt's: by
    format and half of guidance."""
    graph, tensor = model_graph(originals[0].program)
    calls = [case for t in originals for case in cases(graph, t)]
    found: dict[str, dict[str, tuple[float, ...]]] = {}
    for verdict in verdicts:
        if verdict.format is None or verdict.subject != f"{graph}.{tensor}" or len(verdict.case_db) != len(calls):
            continue  # the rungs below judge some of the steps only
        heights: dict[str, dict[int, float]] = {}
        for case, db in zip(calls, verdict.case_db, strict=True):
            by_step = heights.setdefault(case.half, {})
            step = case.step or 0
            by_step[step] = min(db, by_step.get(step, db))
        found[verdict.format] = {
            half: tuple(by_step[step] for step in sorted(by_step)) for half, by_step in heights.items()
        }
    return found


def forced_plot(verdicts: Sequence[Verdict], originals: Sequence[Trajectory]) -> str:
    """`forced_db` as an <svg> element: one colour a format, one dash a half."""
    figure, axes = _axes("PSNR of the model's output, dB")
    for format, halves in forced_db(verdicts, originals).items():
        for dash, (half, heights) in zip(_DASHES, halves.items(), strict=False):
            axes.plot(
                range(1, len(heights) + 1),
                [min(max(db, 0.0), CEILING_DB) for db in heights],
                dash,
                color=_COLOURS.get(format, "#555"),
                label=f"{format}: {half} half" if half else format,
            )
    axes.legend(fontsize=7, loc="lower left")
    return _svg(figure)


def drift_plot(pictures: Sequence[PictureReport]) -> str:
    """PSNR (dB) of the latents after each UNet call, free-running, against the original's: one line a picture, one
    colour a format, one dash a prompt. An <svg> element."""
    figure, axes = _axes("PSNR of the latents, dB")
    prompts = list(dict.fromkeys(picture.prompt for picture in pictures))
    for picture in pictures:
        heights = [min(max(db, 0.0), CEILING_DB) for db in picture.drift_db]
        axes.plot(
            range(1, len(heights) + 1),
            heights,
            _DASHES[prompts.index(picture.prompt) % len(_DASHES)],
            color=_COLOURS.get(picture.format, "#555"),
            label=f"{picture.format}: {_short(picture.prompt)}",
        )
    axes.legend(fontsize=7, loc="lower left")
    return _svg(figure)


def guided_plot(rows: Sequence[Sequence[float]], prompts: Sequence[str], format: str) -> str:
    """PSNR (dB) of the guided prediction at each step, teacher-forced: one line a prompt. An <svg> element."""
    figure, axes = _axes("PSNR of the guided prediction, dB")
    for number, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        heights = [min(max(db, 0.0), CEILING_DB) for db in row]
        dash = _DASHES[number % len(_DASHES)]
        axes.plot(range(1, len(row) + 1), heights, dash, color=_COLOURS.get(format, "#555"), label=_short(prompt))
    axes.legend(fontsize=7, loc="lower left")
    return _svg(figure)


def layer_plot(errors: Sequence[LayerError], budget: float) -> str:
    """The largest relative error of each layer over all steps, in the order of execution: one line a graph, and the
    budget. An <svg> element."""
    figure = Figure(figsize=(4.8, 3.2), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    place = 0
    for colour, graph in enumerate(dict.fromkeys(error.graph for error in errors)):
        heights = [min(max(error.largest, _LEAST), 10.0) for error in errors if error.graph == graph]
        axes.semilogy(range(place, place + len(heights)), heights, ".-", color=f"C{colour}", lw=0.8, ms=3, label=graph)
        place += len(heights)
    axes.axhline(budget, color="#b00", lw=0.8, ls="--", label="budget")
    axes.set_xlabel("layer, in the order of execution")
    axes.set_ylabel("relative error")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="lower right")
    return _svg(figure)


Points = Mapping[str, tuple[float, float]]  # MB of weights, median PSNR (dB) of pictures, by name


def size_plot(uniform: Points, searched: Points) -> str:
    """Size against what pictures lose by it: recipes of one storage by name, and searched ones as a line. An <svg>
    element."""
    figure, axes = _axes("PSNR of pictures, median, dB", "weights, MB")
    line = sorted((mb, min(db, CEILING_DB)) for mb, db in searched.values())
    axes.plot(*zip(*line, strict=True), "o-", color="#1f77b4", markersize=4, label="searched")
    for number, (name, (mb, db)) in enumerate(uniform.items()):
        axes.plot(mb, min(db, CEILING_DB), "s", color="#d62728", markersize=4, label="" if number else "one storage")
        axes.annotate(name, (mb, min(db, CEILING_DB)), (4, -9), textcoords="offset points", fontsize=7)
    axes.autoscale(axis="y")
    axes.margins(x=0.1, y=0.1)
    axes.legend(fontsize=7, loc="upper left")
    return _svg(figure)


def _axes(label: str, across: str = "step") -> tuple[Figure, Axes]:
    """An empty plot of decibels, of a phone's width, where text is as large as it is drawn."""
    figure = Figure(figsize=(4.8, 3.2), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.set_xlabel(across)
    axes.set_ylabel(label)
    axes.set_ylim(0, CEILING_DB + 5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    return figure, axes


def _short(prompt: str) -> str:
    return prompt if len(prompt) <= 28 else f"{prompt[:27].rstrip()}…"


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "pocketdiffusion"}):  # text stays text, ids do not vary
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    found = text.getvalue()
    return found[found.index("<svg") :]
