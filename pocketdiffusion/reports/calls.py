"""The calls of the original and of each artifact that an export made for its proof."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pocketdiffusion.runtime.bundle.verdicts import Kind, Verdict
from pocketdiffusion.runtime.verify.recording import Trajectory


@dataclass(frozen=True)
class Calls:
    """The calls of one graph with a batch of 1: `recorded` by the original, and by `checks`, {check: calls} with the
    format and the name of each comparison."""

    graph: str
    recorded: int
    checks: Mapping[str, int]


def count_calls(originals: Sequence[Trajectory], verdicts: Sequence[Verdict]) -> list[Calls]:
    """Return the calls of each recorded graph. The pictures are not among them: neither the original's controls nor
    those that the artifacts draw free-running."""
    graphs = dict.fromkeys(graph for trajectory in originals for graph in trajectory.calls)
    judged = [v for v in verdicts if v.kind not in (Kind.PICTURES, Kind.STAGE)]
    found = []
    for graph in graphs:
        own = [v for v in judged if v.subject.partition(".")[0] == graph]
        checks = {f"{v.format} {v.rung}" if v.format else v.rung: v.cases for v in own}
        found.append(Calls(graph, sum(len(t.calls.get(graph, ())) for t in originals), checks))
    return found
