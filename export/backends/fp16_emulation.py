"""Running an artifact with the largest magnitude of each operator's output noted, in float32 or emulated float16.

A backend's `open_replay` does this for its files, with each graph as it was emitted.
In the arithmetic "float16" the output of each operator is rounded to float16 before the next one reads it. Within an
operator everything stays float32, so that the values inside a fused operator are not seen.
"""

from pathlib import Path

from pocketdiffusion.export.backends import find_backend
from pocketdiffusion.quantize.float16_range import Note
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.engines.io_adapter import AdaptedRunner
from pocketdiffusion.runtime.engines.mlprogram.execute import Arithmetic
from pocketdiffusion.runtime.runner import Runner


def open_replay(folder: Path, format: str, graph: Graph, arithmetic: Arithmetic, note: Note) -> Runner:
    """Return a runner of the artifact `graph` below `folder` that calls `note` with each operator's output in each
    run."""
    runner = find_backend(format).open_replay(folder / graph.path, graph.file_spec or graph.spec, arithmetic, note)
    return runner if graph.file_spec is None else AdaptedRunner(graph.spec, runner, graph.transposes)
