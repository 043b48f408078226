"""The plots of the reports as SVG elements, drawn with matplotlib. Text stays text."""

import io
from collections.abc import Mapping, Sequence
from typing import Literal

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pocketdiffusion.export.checks.layer_errors import LayerError
from pocketdiffusion.runtime.bundle.verdicts import Verdict
from pocketdiffusion.runtime.engines import engine_names
from pocketdiffusion.runtime.verify.pictures import PictureReport

CEILING_DB = 160.0  # about the precision of float32; equal latents have infinite PSNR
_LEAST = 1e-7  # the least value on a logarithmic axis
_COLOURS = dict(zip(engine_names(), ("#d62728", "#1f77b4", "#2ca02c"), strict=False))  # by format
_DASHES = ("-", "--", ":", "-.")


Calls = Sequence[tuple[str, int]]  # each call of the denoiser: half of guidance, step from 0
Steps = Mapping[str, Mapping[str, Sequence[float]]]  # PSNR (dB) at each step, by format and half of guidance


def teacher_forced_db(
    verdicts: Sequence[Verdict], subject: str, calls: Calls
) -> dict[str, dict[str, tuple[float, ...]]]:
    """Return {format: {half of guidance: PSNR (dB) at each step}} of the denoiser's output, teacher-forced, the lowest
    of all prompts. `subject`: name of the output in verdicts. `calls`: of all prompts."""
    found: dict[str, dict[str, tuple[float, ...]]] = {}
    for verdict in verdicts:
        if verdict.format is None or verdict.subject != subject or len(verdict.case_db) != len(calls):
            continue  # other rungs judge only some of the steps
        heights: dict[str, dict[int, float]] = {}
        for (half, step), db in zip(calls, verdict.case_db, strict=True):
            by_step = heights.setdefault(half, {})
            by_step[step] = min(db, by_step.get(step, db))
        found[verdict.format] = {
            half: tuple(by_step[step] for step in sorted(by_step)) for half, by_step in heights.items()
        }
    return found


def teacher_forced_plot(steps: Steps) -> str:
    """Return the result of `teacher_forced_db` as an <svg> element: one colour per format, one dash per half."""
    figure, axes = _axes("PSNR of the denoiser's output (dB)")
    for format, halves in steps.items():
        for dash, (half, heights) in zip(_DASHES, halves.items(), strict=False):
            label = f"{format}: {half} half" if half else format
            axes.plot(range(1, len(heights) + 1), _clip(heights), dash, color=_COLOURS.get(format, "#777"), label=label)
    _legend(axes)
    return _svg(figure)


def drift_plot(pictures: Sequence[PictureReport]) -> str:
    """Return the PSNR (dB) of the latents after each step, free-running, as an <svg> element: one line per picture, one
    colour per format, one dash per prompt."""
    figure, axes = _axes("PSNR of the latents (dB)")
    prompts = list(dict.fromkeys(picture.prompt for picture in pictures))
    for picture in pictures:
        axes.plot(
            range(1, len(picture.drift_db) + 1),
            _clip(picture.drift_db),
            _DASHES[prompts.index(picture.prompt) % len(_DASHES)],
            color=_COLOURS.get(picture.format, "#777"),
            label=f"{picture.format}: {_short(picture.prompt)}",
        )
    _legend(axes)
    return _svg(figure)


def guided_plot(rows: Sequence[Sequence[float]], prompts: Sequence[str]) -> str:
    """Return the PSNR (dB) of the guided prediction at each step, teacher-forced, as an <svg> element: one line per
    prompt."""
    figure, axes = _axes("PSNR of the guided prediction (dB)")
    for number, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        dash = _DASHES[number % len(_DASHES)]
        axes.plot(range(1, len(row) + 1), _clip(row), dash, color="C0", label=_short(prompt))
    _legend(axes)
    return _svg(figure)


def layer_plot(errors: Sequence[LayerError], budget: float) -> str:
    """Return the largest relative error of each layer over all steps, in the order of execution, as an <svg> element:
    one line per graph, and the budget."""
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
    _legend(axes, "lower right")
    return _svg(figure)


Points = Mapping[str, tuple[float, float]]  # by name: weights in MB, median PSNR (dB) of pictures


def size_plot(uniform: Points, searched: Points) -> str:
    """Return the size of recipes against the PSNR of their pictures, as an <svg> element: named points for recipes of
    one storage, and a line for searched recipes."""
    figure, axes = _axes("median PSNR of pictures (dB)", "weights (MB)")
    line = sorted((mb, min(db, CEILING_DB)) for mb, db in searched.values())
    axes.plot(*zip(*line, strict=True), "o-", color="#1f77b4", markersize=4, label="searched")
    for number, (name, (mb, db)) in enumerate(uniform.items()):
        axes.plot(mb, min(db, CEILING_DB), "s", color="#d62728", markersize=4, label="" if number else "one storage")
        axes.annotate(name, (mb, min(db, CEILING_DB)), (4, -9), textcoords="offset points", fontsize=7)
    axes.autoscale(axis="y")
    axes.margins(x=0.1, y=0.1)
    _legend(axes, "upper left")
    return _svg(figure)


def _axes(label: str, across: str = "step") -> tuple[Figure, Axes]:
    """Return an empty plot in dB, as wide as a phone's screen, so that its text is not scaled there."""
    figure = Figure(figsize=(4.8, 3.2), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.set_xlabel(across)
    axes.set_ylabel(label)
    axes.set_ylim(0, CEILING_DB + 5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    return figure, axes


def _legend(axes: Axes, place: Literal["lower left", "lower right", "upper left"] = "lower left") -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, loc=place)


def _clip(heights: Sequence[float]) -> list[float]:
    return [min(max(db, 0.0), CEILING_DB) for db in heights]


def _short(prompt: str) -> str:
    return prompt if len(prompt) <= 28 else f"{prompt[:27].rstrip()}…"


def _svg(figure: Figure) -> str:
    """Return the figure as an <svg> element in the colours of the page around it: black becomes the colour of text,
    white the page's background, which is white if the figure is a file of its own."""
    text = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "pocketdiffusion"}):  # text stays text, ids do not vary
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    found = text.getvalue().replace("#000000", "currentColor").replace("#ffffff", "var(--page, #ffffff)")
    return found[found.index("<svg") :]
