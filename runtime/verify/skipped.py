"""Compute units that no engine on this machine runs, with the reason. They are reported next to the verdicts, and not
counted as verdicts."""

from dataclasses import dataclass

from pocketdiffusion.runtime.bundle.manifest import UnsealedManifest
from pocketdiffusion.runtime.engines import find_engine


@dataclass(frozen=True)
class NotRun:
    """Graphs that were not run. `subject`: a graph's name, or "all" for every graph of the format."""

    subject: str
    format: str
    device: str
    arithmetic: str
    reason: str


def units_not_run(manifest: UnsealedManifest) -> list[NotRun]:
    """Return the compute units that the bundle's artifacts are for and that no runner on this machine has."""
    engines = {format: find_engine(format) for format in manifest.graphs}
    found = {
        (format, graph.compute_unit, graph.arithmetic, engine.absent[graph.compute_unit])
        for format, engine in engines.items()
        for graph in manifest.graphs[format].values()
        if engine is not None and graph.compute_unit in engine.absent
    }
    return [NotRun("all", *each) for each in sorted(found)]
