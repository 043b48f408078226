"""Audit of an artifact in float16: its results must stay within float16, and are corrected where they do not.

Powers of two in the weights come first: they need no time or memory on any phone, and change nothing in float32. The
loss of storing them in float16 is judged by the floor of the original weights. Results that they cannot correct become
an island of float32, if the format has islands."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pocketdiffusion.export.artifact import Artifact
from pocketdiffusion.export.backends import find_backend
from pocketdiffusion.export.backends.emission import emit
from pocketdiffusion.export.backends.fp16_emulation import open_replay
from pocketdiffusion.export.component import Component, read_weights
from pocketdiffusion.export.float16.weight_rescaling import plan, rescale
from pocketdiffusion.quantize.float16_range import Found, Range, Underflow, by_magnitude, underflow, update_largest
from pocketdiffusion.quantize.scheme import Plan
from pocketdiffusion.runtime.bundle.graph_records import Graph
from pocketdiffusion.runtime.bundle.verdicts import Kind, Verdict
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.verify.check import Check, Scope, Tolerance
from pocketdiffusion.runtime.verify.gate import judge_graph
from pocketdiffusion.runtime.verify.recording import Trajectory, cases
from pocketdiffusion.runtime.verify.tolerances import floor_db


@dataclass(frozen=True)
class Audit:
    """The audit of one artifact in float16, on recorded cases: the value ranges of its results, the nearest to the
    limit of float16 first; the corrections of those beyond it; weights that float16 stores badly; and the verdicts on
    the artifact replayed with every result rounded to float16."""

    format: str
    graph: str
    ranges: tuple[Range, ...]
    corrections: tuple[str, ...]
    underflows: tuple[Underflow, ...]
    replayed: tuple[Verdict, ...]


@dataclass(frozen=True)
class EmittedGraph:
    """An emitted graph, and the component and the options that it was emitted from."""

    graph: Graph
    part: Component
    original: Component  # before any correction
    artifact: Artifact
    plan: Plan
    audit: Audit | None  # None where nothing is float16

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Return the verdicts that must pass before it ships: those on the replay, if a phone computes in float16 and
        the gate here does not."""
        judged = self.graph.compute_unit != "cpu" and self.graph.arithmetic == "float32"
        return self.audit.replayed if self.audit is not None and judged else ()


def emit_within_float16(
    part: Component,
    artifact: Artifact,
    plan: Plan,
    folder: Path,
    trajectories: Sequence[Trajectory],
    *,
    open_batch: bool,
) -> EmittedGraph:
    """Emit a graph as `emit` does. If `plan` computes in floats and stores less than float32, and results exceed
    float16 on `trajectories`, correct the graph in `folder`: by powers of two in the weights, then by islands.

    Graphs that compute in integers are not audited: int8 is for a CPU, or, in Core ML, run by the gate itself in
    float16; int16 is for neural processors without floats."""
    graph = emit(part, artifact, folder, open_batch=open_batch, plan=plan)
    if plan.storage == "float32" or plan.activation != "float":
        return EmittedGraph(graph, part, part, artifact, plan, None)
    original = part
    corrections: list[str] = []
    replayed, ranges = replay(folder, graph, artifact.format, plan, trajectories)
    for correct in (_rescale, _upcast):
        if all(r.fits for r in ranges):
            break
        beyond = measure_ranges(folder, artifact.format, graph, trajectories)
        corrected = correct(part, artifact, folder / graph.path, beyond, trajectories)
        if corrected is None:
            continue
        remove(folder, graph)
        graph = emit(corrected.part, corrected.artifact, folder, open_batch=open_batch, plan=plan)
        better, found = replay(folder, graph, artifact.format, plan, trajectories)
        if sum(not r.fits for r in found) < sum(not r.fits for r in ranges):
            part, artifact, replayed, ranges = corrected.part, corrected.artifact, better, found
            corrections.append(corrected.description)
        else:  # it does not reach the results that exceed float16
            remove(folder, graph)
            graph = emit(part, artifact, folder, open_batch=open_batch, plan=plan)
    lost = (underflow(name, weight) for name, weight in read_weights(part) if weight.ndim > 1)
    underflows = tuple(each for each in lost if each is not None)
    audit = Audit(artifact.format, part.spec.name, tuple(ranges), tuple(corrections), underflows, tuple(replayed))
    return EmittedGraph(graph, part, original, artifact, plan, audit)


def check_replay(format: str, plan: Plan) -> Check:
    """Return the check on a replay, with every result rounded to float16, of a graph stored as `plan` says."""
    scope = Scope(format, plan.storage, "float16")
    return Check(Kind.REPLAY, Tolerance(floor_db(scope, recipe_db=plan.floor_db)), scope)


def replay(
    folder: Path, graph: Graph, format: str, plan: Plan, trajectories: Sequence[Trajectory]
) -> tuple[list[Verdict], list[Range]]:
    """Run the artifact, stored as `plan` says, with each result rounded to float16. Return its verdicts, and the value
    ranges of its results, the nearest to the limit of float16 first; infinite for a result that overflowed."""
    found: Found = {}
    runner = open_replay(folder, format, graph, "float16", partial(update_largest, found))
    check = check_replay(format, plan)
    return judge_graph(check, runner, trajectories), by_magnitude(found)


def measure_ranges(folder: Path, format: str, graph: Graph, trajectories: Sequence[Trajectory]) -> list[Range]:
    """Return the value range of each result of an artifact in float32, which does not overflow where float16 does."""
    found: Found = {}
    runner = open_replay(folder, format, graph, "float32", partial(update_largest, found))
    for inputs in _inputs(graph.spec.name, trajectories):
        runner(inputs)
    return by_magnitude(found)


def remove(folder: Path, graph: Graph) -> None:
    """Remove a graph's files, and the folders that are empty after that."""
    for file in graph.files:
        (folder / file).unlink()
    for parent in sorted({p for file in graph.files for p in Path(file).parents}, reverse=True):
        if parent != Path() and (folder / parent).is_dir() and not any((folder / parent).iterdir()):
            (folder / parent).rmdir()


@dataclass(frozen=True)
class Correction:
    """The component and the options to emit instead, and a line that describes the change."""

    part: Component
    artifact: Artifact
    description: str


def _rescale(
    part: Component, artifact: Artifact, path: Path, ranges: Sequence[Range], trajectories: Sequence[Trajectory]
) -> Correction | None:
    try:
        found = plan(part, artifact.rewrites, _inputs(part.spec.name, trajectories))
    except ProofError:  # left to the next correction
        return None
    if not found.weights:
        return None
    said = (
        f"{ranges[0].describe()}: {len(found.weights)} weights were multiplied by powers of two, from "
        f"2^{min(found.weights.values())} to 2^{max(found.weights.values())}, and {len(found.epsilons)} epsilons"
    )
    return Correction(rescale(part, found), artifact, said)


def _upcast(
    part: Component, artifact: Artifact, path: Path, ranges: Sequence[Range], trajectories: Sequence[Trajectory]
) -> Correction | None:
    find_islands = find_backend(artifact.format).find_islands
    if find_islands is None:
        return None
    found = tuple(sorted({*artifact.islands, *find_islands(path, ranges)}))
    said = f"{ranges[0].describe()}: {len(found)} operators stay float32"
    return Correction(part, replace(artifact, islands=found), said)


def _inputs(graph: str, trajectories: Sequence[Trajectory]) -> Iterator[Mapping[str, Array]]:
    for trajectory in trajectories:
        for case in cases(graph, trajectory):
            yield case.inputs
