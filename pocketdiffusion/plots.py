"""The report's plots, as SVG to be put into a page: drawn with matplotlib, text left as text."""

import io
from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pocketdiffusion.runtime.gate import PictureReport

CEILING_DB = 160.0  # float32 itself ends near here; equal latents would lie at infinity
_COLOURS = {"onnx": "#1f77b4", "coreml": "#d62728", "tflite": "#2ca02c"}
_DASHES = ("-", "--", ":", "-.")


def drift_plot(pictures: Sequence[PictureReport]) -> str:
    """PSNR (dB) of the latents after each UNet call, free-running, against the original's: one line a picture, one
    colour a format, one dash a prompt. An <svg> element."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
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
    axes.set_xlabel("step")
    axes.set_ylabel("PSNR of the latents, dB")
    axes.set_ylim(0, CEILING_DB + 5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="lower left")
    return _svg(figure)


def _short(prompt: str) -> str:
    return prompt if len(prompt) <= 28 else f"{prompt[:27].rstrip()}…"


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "pocketdiffusion"}):  # text stays text, ids do not vary
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    found = text.getvalue()
    return found[found.index("<svg") :]
