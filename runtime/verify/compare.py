"""Two that draw the same prompts: how far the one is from the other, graph by graph, step by step, picture by picture.

The first is given as trajectories: of an original (export/reference/record.py), or of another bundle (`record_bundle`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import process_time
from typing import Protocol

from pocketdiffusion.runtime.bundle.bundle import Bundle
from pocketdiffusion.runtime.bundle.verdicts import Kind, Verdict
from pocketdiffusion.runtime.engines import find_graph, open_graph
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.pipeline import combine_halves, find_cut
from pocketdiffusion.runtime.program import HALVES, Program, model_graph, program_graphs
from pocketdiffusion.runtime.runner import Array, Runner
from pocketdiffusion.runtime.verify.check import NONE, Check, Scope
from pocketdiffusion.runtime.verify.finite import largest
from pocketdiffusion.runtime.verify.gate import judge_graph
from pocketdiffusion.runtime.verify.metrics import psnr_db
from pocketdiffusion.runtime.verify.pictures import PictureReport, draw_pictures
from pocketdiffusion.runtime.verify.recorded import RecordingRunner
from pocketdiffusion.runtime.verify.recording import Trajectory, cases, guided_outputs

PAIRS = 15  # calls of each UNet that are timed, in turn


@dataclass(frozen=True)
class Difference:
    """`graphs`: each output of each graph, teacher-forced, with the dB of every case. `guided_db`: of each picture, the
    PSNR of the guided prediction at each step, where guidance amplifies what the two halves differ by. `pictures`:
    free-running. None of these has a floor."""

    format: str
    graphs: tuple[Verdict, ...]
    guided_db: tuple[tuple[float, ...], ...]
    pictures: tuple[PictureReport, ...]

    @property
    def median_db(self) -> float:
        """Over the pictures; of an even number the lower of the two in the middle."""
        return sorted(picture.psnr_db for picture in self.pictures)[(len(self.pictures) - 1) // 2]

    @property
    def lowest_db(self) -> float:
        """Over the pictures."""
        return min(picture.psnr_db for picture in self.pictures)

    def not_finite(self, one: str, other: str) -> list[str]:
        """Say of each output of a graph and of each picture where NaN or infinity is, in `one`, the first, or in
        `other`: what is not finite is no distance, and fails every bound."""
        graphs = [(report.subject, report.not_finite) for report in self.graphs]
        found = [f"{name} is not finite {each.where(one, other)} in {each.what}" for name, each in graphs if each]
        return found + [p.not_finite.describe(one, other) for p in self.pictures if p.not_finite is not None]


class Candidate(Protocol):
    """What is compared: a bundle's artifacts of one format, or a model."""

    @property
    def title(self) -> str: ...

    @property
    def format(self) -> str:
        """ "onnx", "coreml", "tflite"; "torch" for a model."""
        ...

    @property
    def program(self) -> Program: ...

    def spec(self, graph: str) -> GraphSpec: ...

    def open(self, graph: str) -> Runner: ...

    def precision(self, graph: str) -> tuple[str, str]:
        """Storage and arithmetic."""
        ...

    def find_cut(self, prompt: str) -> str:
        """The end of `prompt` that its text encoder has no room for, or ""."""
        ...

    def draw(self, trajectories: Sequence[Trajectory]) -> Iterator[PictureReport]:
        """The prompts of what was recorded, free-running, beside it."""
        ...


@dataclass(frozen=True)
class BundleCandidate:
    """The artifacts of one format. Raises UserError where the bundle has none of it."""

    bundle: Bundle
    format: str

    @property
    def title(self) -> str:
        return str(self.bundle.folder)

    @property
    def program(self) -> Program:
        return self.bundle.manifest.program

    def spec(self, graph: str) -> GraphSpec:
        return find_graph(self.bundle, graph, self.format).spec

    def open(self, graph: str) -> Runner:
        return open_graph(self.bundle, graph, self.format)

    def precision(self, graph: str) -> tuple[str, str]:
        found = find_graph(self.bundle, graph, self.format)
        return found.storage, found.arithmetic

    def find_cut(self, prompt: str) -> str:
        return find_cut(self.bundle, prompt)

    def draw(self, trajectories: Sequence[Trajectory]) -> Iterator[PictureReport]:
        return draw_pictures(self.bundle, trajectories, self.format)


def check_shapes(one: Candidate, other: Candidate) -> None:
    """Raises UserError unless both have the same graphs, and every tensor of them one shape in both, their batches
    aside."""
    mine, theirs = (program_graphs(side.program) for side in (one, other))
    if set(mine) != set(theirs):
        titles = f"{other.title} has the graphs {', '.join(theirs)}, {one.title} {', '.join(mine)}"
        raise UserError(f"{titles}: no two to compare")
    specs = ({graph: side.spec(graph) for graph in mine} for side in (one, other))
    for name, own, given in other_shapes(*specs):
        raise UserError(f"{other.title} has {name} of {list(given)}, {one.title} of {list(own)}: no two to compare")


Shape = tuple[int | str, ...]


def other_shapes(mine: Mapping[str, GraphSpec], others: Mapping[str, GraphSpec]) -> Iterator[tuple[str, Shape, Shape]]:
    """Each tensor of the graphs `mine` that has another shape in `others`, the batch aside: its name, and both shapes,
    that in `others` empty where it is not there."""
    for graph, spec in mine.items():
        if graph not in others:
            yield graph, ("graph",), ()
            continue
        given = {tensor.name: tensor.shape[1:] for tensor in (*others[graph].inputs, *others[graph].outputs)}
        for tensor in (*spec.inputs, *spec.outputs):
            if given.get(tensor.name, ()) != tensor.shape[1:]:
                yield f"{graph}.{tensor.name}", tensor.shape[1:], given.get(tensor.name, ())


def compare(
    trajectories: Sequence[Trajectory], candidate: Candidate, say: Callable[[str], None] = lambda line: None
) -> Difference:
    """`candidate` against what was recorded of another whose tensors have the same shapes (`check_shapes`)."""
    graphs: list[Verdict] = []
    guided: tuple[tuple[float, ...], ...] = ()
    model, output = model_graph(candidate.program)
    for name in sorted(program_graphs(candidate.program)):
        say(f"{candidate.format} {name}")
        storage, arithmetic = candidate.precision(name)
        runner = RecordingRunner(candidate.open(name))
        scope = Scope(candidate.format, storage, arithmetic)
        graphs += judge_graph(Check(Kind.COMPARED, NONE, scope), runner, trajectories)
        if name == model:
            guided = _guided_db(trajectories, model, [outputs[output] for _, outputs in runner.calls])
    say(f"{candidate.format} pictures")
    return Difference(candidate.format, tuple(graphs), guided, tuple(candidate.draw(trajectories)))


def _guided_db(
    trajectories: Sequence[Trajectory], graph: str, outputs: Sequence[Array]
) -> tuple[tuple[float, ...], ...]:
    """From what the graph was judged by: a picture after the other, in each the calls as they were recorded."""
    given = iter(outputs)
    found = []
    for t in trajectories:
        wanted = guided_outputs(t)
        peak = largest(list(wanted.values()))
        halves: dict[int, dict[str, Array]] = {step: {} for step in wanted}
        for case in cases(graph, t):
            assert case.step is not None
            halves[case.step][case.half or HALVES[1]] = next(given)
        found.append(
            tuple(psnr_db(one, combine_halves(halves[step], t.guidance), peak) for step, one in wanted.items())
        )
    return tuple(found)


def step_ratio(one: Runner, other: Runner, trajectory: Trajectory) -> float:
    """Processor time of a call of the graph `other`, such as a UNet, over that of `one`: the median over pairs of calls
    in turn."""
    inputs = next(cases(one.spec.name, trajectory)).inputs
    ratios = []
    for number in range(PAIRS + 1):
        spent = [0.0, 0.0]
        for which in (0, 1) if number % 2 else (1, 0):
            begun = process_time()
            (one, other)[which](inputs)
            spent[which] = process_time() - begun
        if number:  # the first pays for caches
            ratios.append(spent[1] / max(spent[0], 1e-9))
    return median(ratios)
