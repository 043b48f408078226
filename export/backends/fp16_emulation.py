"""Runs an artifact so that every result of it is seen: its largest magnitude, and in float16 if that is asked for.

A backend's `open_replay` does that for its files, each graph as it was emitted.
In the arithmetic "float16" the result of each operator is rounded to float16 before the next one takes it; within an
operator everything stays float32, so that what a fused operator holds inside is not seen.
"""

from pathlib import Path

from pocketdiffusion.export.backends import find_backend
from pocketdiffusion.quantize.float16_range import Note
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.engines.io_adapter import AdaptedRunner
from pocketdiffusion.runtime.engines.mlprogram.execute import Arithmetic
from pocketdiffusion.runtime.runner import Runner


def open_replay(folder: Path, format: str, graph: Graph, arithmetic: Arithmetic, note: Note) -> Runner:
    """The artifact `graph` below `folder` as a runner that calls `note` with each result of each run."""
    runner = find_backend(format).open_replay(folder / graph.path, graph.file_spec or graph.spec, arithmetic, note)
    return runner if graph.file_spec is None else AdaptedRunner(graph.spec, runner, graph.transposes)
