"""Compute units that no engine on this machine runs, with the reason. They are reported next to the verdicts, and not
counted as verdicts."""

from dataclasses import dataclass

from pocketdiffusion.runtime.bundle.manifest import Draft

ABSENT = {"npu": "Qualcomm's QNN is not on this machine: onnxruntime's CPU kernels ran the graph instead"}


@dataclass(frozen=True)
class NotRun:
    """Graphs that were not run. `subject`: a graph's name, or "all" for every graph of the format."""

    subject: str
    format: str
    device: str
    arithmetic: str
    reason: str


def units_not_run(manifest: Draft) -> list[NotRun]:
    """Return the compute units that the bundle's artifacts are for and that no runner on this machine has."""
    found = {
        (format, graph.compute_unit, graph.arithmetic)
        for format, graphs in manifest.graphs.items()
        for graph in graphs.values()
        if graph.compute_unit in ABSENT
    }
    return [NotRun("all", format, unit, arithmetic, ABSENT[unit]) for format, unit, arithmetic in sorted(found)]
