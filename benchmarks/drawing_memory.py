"""Measure the memory of drawing with a bundle, by stage, and compare it with what the bundle's manifest predicts.

    python benchmarks/drawing_memory.py DIR [--format onnx] [--steps 3] [-o FILE.json]

One picture is drawn in each way, each in a process of its own that does nothing else: "whole" opens all graphs of a
stage, "low" is `generate --low-memory`. Memory is anonymous memory (RssAnon, which the system cannot drop), sampled
every 2 ms from another process, less what that process holds where no graph is open: the least at the beginning of any
stage and at the end, stated as "process" (the interpreter, numpy, the engine's library). Exits with 1 if a prediction
is more than 15 % away from what was measured, and by more than 32 MB (the tokenizer's tables and the sessions).
"""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pocketdiffusion.cli.console import run
from pocketdiffusion.runtime.bundle.bundle import Bundle, open_unproven
from pocketdiffusion.runtime.bundle.stage_memory import stage_peaks
from pocketdiffusion.runtime.engines import graph_format, open_graph
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.memory import STATUS, return_freed_memory
from pocketdiffusion.runtime.pipeline import generate
from pocketdiffusion.runtime.program import graphs_of, text_to_image
from pocketdiffusion.runtime.runner import Runner

WAYS = {"whole": False, "low": True}
SECONDS = 0.002
TOLERANCE, SMALL = 0.15, 32e6  # of what was measured; bytes


@dataclass(frozen=True)
class Row:
    """One stage in one way: bytes beyond those of the process without a graph. `predicted` is None if the manifest does
    not state it."""

    way: str
    stage: str
    predicted: int | None
    measured: int
    process: int

    @property
    def agrees(self) -> bool:
        """Return True unless the prediction is too far away from what was measured."""
        off = abs(self.measured - (self.measured if self.predicted is None else self.predicted))
        return off <= max(TOLERANCE * self.measured, SMALL)


def anonymous_bytes(status: Path = STATUS) -> int:
    """Return the anonymous memory (RssAnon) of a process."""
    return int(status.read_text().split("RssAnon:")[1].split()[0]) * 1024


def draw(folder: Path, format: str, way: str, steps: int) -> None:
    """Draw a picture, and print a line "SECONDS BYTES STAGE" before the first graph of each stage is opened, with the
    anonymous memory at that time. It runs in a child process."""
    bundle = open_unproven(folder, check=False)
    stages = {
        graph: name for name, stage in text_to_image(bundle.manifest.program).items() for graph in graphs_of(stage)
    }
    load_library(bundle, format)
    begun: list[str] = []

    def opener(bundle: Bundle, name: str, format: str) -> Runner:
        if begun[-1:] != [stages[name]]:
            begun.append(stages[name])
            print(time.monotonic(), anonymous_bytes(), stages[name], flush=True)
        return open_graph(bundle, name, format)

    for _ in generate(bundle, "a", steps=steps, format=format, low_memory=WAYS[way], opener=opener):
        pass
    print(time.monotonic(), anonymous_bytes(), "end", flush=True)


def load_library(bundle: Bundle, format: str) -> None:
    """Open and free the smallest graph, so that the engine's library and its threads are there before the first
    measurement."""
    graphs = bundle.manifest.graphs[format]
    open_graph(bundle, min(graphs, key=lambda name: graphs[name].parameters), format)
    return_freed_memory()


def watch(folder: Path, format: str, way: str, steps: int) -> Iterator[tuple[str, int, int]]:
    """Yield each stage of a drawing in the way `way`, the largest anonymous memory while it ran in bytes, less that of
    the process without a graph, and the latter. Raise ProofError if drawing fails."""
    samples: list[tuple[float, int]] = []
    command = [sys.executable, __file__, "draw", str(folder), format, way, str(steps)]
    with Popen(command, stdout=PIPE, text=True) as child:
        status = Path(f"/proc/{child.pid}/status")
        while child.poll() is None:
            try:
                samples.append((time.monotonic(), anonymous_bytes(status)))
            except (OSError, IndexError):
                pass  # it has just ended
            time.sleep(SECONDS)
        assert child.stdout is not None
        marks = [line.split() for line in child.stdout.read().splitlines()]
    if child.returncode:
        raise ProofError(f"drawing with {folder} ({format}, {way}) failed")
    process = min(int(held) for _, held, _ in marks)
    for (begun, held, stage), (ended, *_) in zip(marks, marks[1:], strict=False):
        during = [size for moment, size in samples if float(begun) <= moment <= float(ended)]
        yield stage, max([int(held), *during]) - process, process


def measure(bundle: Bundle, format: str, steps: int) -> Iterator[Row]:
    """Yield the rows of a bundle, each way after the other."""
    for way, low in WAYS.items():
        predicted = stage_peaks(bundle.manifest.program, bundle.manifest.graphs[format], low_memory=low)
        for stage, measured, process in watch(bundle.folder, format, way, steps):
            yield Row(way, stage, predicted[stage], measured, process)


def show(rows: Sequence[Row], title: str) -> None:
    """Print the rows as a table, in MB of 1e6 bytes."""
    table = Table("way", "stage", "predicted MB", "measured MB", "measured / predicted", "process MB", title=title)
    for row in rows:
        ratio = "" if not row.predicted else f"{row.measured / row.predicted:.2f}"
        told = "not stated" if row.predicted is None else f"{row.predicted / 1e6:.1f}"
        table.add_row(row.way, row.stage, told, f"{row.measured / 1e6:.1f}", ratio, f"{row.process / 1e6:.1f}")
    Console().print(table)


def main(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a bundle.")],
    format: Annotated[str | None, typer.Option(help="The format to draw with. Default: the bundle's first.")] = None,
    steps: Annotated[int, typer.Option(help="Denoising steps.")] = 3,
    output: Annotated[Path, typer.Option("-o", help="JSON file for the figures.")] = Path("build/drawing_memory.json"),
) -> None:
    bundle = open_unproven(folder, check=False)
    format = graph_format(bundle, format)
    rows = list(measure(bundle, format, steps))
    size = bundle.manifest.latents
    title = f"{bundle.manifest.model.name}, {format}, {size.width * size.scale}x{size.height * size.scale}"
    show(rows, f"memory of drawing: {title}, {steps} steps")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps([{"subject": title, **asdict(row)} for row in rows], indent=1) + "\n")
    if wrong := [row for row in rows if not row.agrees]:
        names = ", ".join(f"{row.way} {row.stage}" for row in wrong)
        raise ProofError(f"{folder}: what is predicted is not within {TOLERANCE:.0%} of what was measured: {names}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["draw"]:
        draw(Path(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]))
    else:
        run(lambda: typer.run(main))
