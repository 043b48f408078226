"""Comparison of two sides that draw the same prompts: graph by graph, step by step, picture by picture.

The first side is given as trajectories of an original (export/reference/record.py) or of a bundle (`record_bundle`).
They are read one by one and not kept, so that memory does not grow with the number of prompts."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import process_time
from typing import Protocol

from pocketdiffusion.runtime.bundle.bundle import Bundle
from pocketdiffusion.runtime.bundle.verdicts import Kind, Verdict
from pocketdiffusion.runtime.engines import find_graph, open_graph
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.pipeline import combine_halves, find_truncated
from pocketdiffusion.runtime.program import HALVES, Program, model_graph, program_graphs
from pocketdiffusion.runtime.progress import Progress
from pocketdiffusion.runtime.runner import Array, Runner
from pocketdiffusion.runtime.verify.check import NONE, Check, Scope
from pocketdiffusion.runtime.verify.finite import largest
from pocketdiffusion.runtime.verify.metrics import Comparison, Tally, psnr_db
from pocketdiffusion.runtime.verify.pictures import PictureReport, draw_pictures
from pocketdiffusion.runtime.verify.recording import Trajectory, cases, guided_outputs

PAIRS = 15  # calls of each UNet that are timed, in turn


@dataclass(frozen=True)
class Drawn:
    """The data that is kept of one drawing of the first side: its settings, the picture (uint8 [H, W, 3]), its controls
    in dB, and for each call of the denoiser the half of guidance and the step (from 0)."""

    prompt: str
    seed: int
    steps: int
    guidance: float
    picture: Array
    controls: Mapping[str, float]
    calls: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Difference:
    """All measurements; none of them has a floor. `graphs`: each output of each graph, teacher-forced, with the PSNR of
    every case. `guided_db`: for each picture, the PSNR of the guided prediction at each step, because guidance
    amplifies the difference between the halves. `pictures`: free-running, in the order of `drawn`. `subject` is the
    output of the denoiser in `graphs`."""

    format: str
    graphs: tuple[Verdict, ...]
    guided_db: tuple[tuple[float, ...], ...]
    pictures: tuple[PictureReport, ...]
    drawn: tuple[Drawn, ...] = ()
    subject: str = ""

    @property
    def median_db(self) -> float:
        """Return the median PSNR (dB) of the pictures; of an even number the lower of the two in the middle."""
        return sorted(picture.psnr_db for picture in self.pictures)[(len(self.pictures) - 1) // 2]

    @property
    def lowest_db(self) -> float:
        """Return the lowest PSNR (dB) of the pictures."""
        return min(picture.psnr_db for picture in self.pictures)

    def not_finite(self, one: str, other: str) -> list[str]:
        """Return a sentence for each output and picture that has NaN or infinity. `one` and `other` are the names of
        the first and the second side in it. A value that is not finite fails every bound."""
        graphs = [(report.subject, report.not_finite) for report in self.graphs]
        found = [f"{name} is not finite {each.where(one, other)} in {each.what}" for name, each in graphs if each]
        return found + [p.not_finite.describe(one, other) for p in self.pictures if p.not_finite is not None]


class Candidate(Protocol):
    """The second side of a comparison: a bundle's artifacts of one format, or a model."""

    @property
    def title(self) -> str: ...

    @property
    def format(self) -> str:
        """Return "onnx", "coreml" or "tflite", and "torch" for a model."""
        ...

    @property
    def program(self) -> Program: ...

    def spec(self, graph: str) -> GraphSpec: ...

    def open(self, graph: str) -> Runner: ...

    def precision(self, graph: str) -> tuple[str, str]:
        """Return storage and arithmetic of a graph."""
        ...

    def find_truncated(self, prompt: str) -> str:
        """Return the end of `prompt` that does not fit into its text encoder, "" if all of it fits."""
        ...

    def draw(self, trajectories: Sequence[Trajectory]) -> Iterator[PictureReport]:
        """Draw the prompts of `trajectories` free-running, and yield a comparison of each picture with the recorded
        one."""
        ...


@dataclass(frozen=True)
class BundleCandidate:
    """The artifacts of one format of a bundle. Raises UserError if the bundle has none of this format."""

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

    def find_truncated(self, prompt: str) -> str:
        return find_truncated(self.bundle, prompt)

    def draw(self, trajectories: Sequence[Trajectory]) -> Iterator[PictureReport]:
        return draw_pictures(self.bundle, trajectories, self.format)


def check_shapes(one: Candidate, other: Candidate) -> None:
    """Check that both sides have the same graphs and tensors of equal shapes, except for the batch. Raise UserError if
    not."""
    mine, theirs = (program_graphs(side.program) for side in (one, other))
    if set(mine) != set(theirs):
        titles = f"{other.title} has the graphs {', '.join(theirs)}, {one.title} {', '.join(mine)}"
        raise UserError(f"{titles}: only models with the same graphs can be compared")
    specs = ({graph: side.spec(graph) for graph in mine} for side in (one, other))
    for name, own, given in other_shapes(*specs):
        raise UserError(
            f"the shape of {name} is {list(given)} in {other.title} and {list(own)} in {one.title}: only "
            "models with equal shapes can be compared; --size of `export` sets the size of the pictures"
        )


Shape = tuple[int | str, ...]


def other_shapes(mine: Mapping[str, GraphSpec], others: Mapping[str, GraphSpec]) -> Iterator[tuple[str, Shape, Shape]]:
    """Yield the name of each tensor whose shape differs between `mine` and `others`, and both shapes. The batch is
    ignored; the second shape is empty if the tensor is missing in `others`."""
    for graph, spec in mine.items():
        if graph not in others:
            yield graph, ("graph",), ()
            continue
        given = {tensor.name: tensor.shape[1:] for tensor in (*others[graph].inputs, *others[graph].outputs)}
        for tensor in (*spec.inputs, *spec.outputs):
            if given.get(tensor.name, ()) != tensor.shape[1:]:
                yield f"{graph}.{tensor.name}", tensor.shape[1:], given.get(tensor.name, ())


def compare(
    trajectories: Iterable[Trajectory], candidate: Candidate, progress: Progress = lambda line: None
) -> Difference:
    """Return the differences of `candidate` from the recorded first side, whose tensors have the same shapes
    (`check_shapes`). `trajectories` may be a generator that draws: only one is held at a time."""
    model, output = model_graph(candidate.program)
    names = sorted(program_graphs(candidate.program))
    tallies = {name: {tensor.name: Tally() for tensor in candidate.spec(name).outputs} for name in names}
    guided: list[tuple[float, ...]] = []
    pictures: list[PictureReport] = []
    drawn: list[Drawn] = []
    for t in trajectories:
        for name in names:
            progress(f"{candidate.format} {name}: {t.prompt}")
            outputs = _add_calls(tallies[name], candidate.open(name), t, output if name == model else "")
            if name == model:
                guided.append(_guided_db(t, model, outputs))
        progress(f"{candidate.format} picture: {t.prompt}")
        pictures += candidate.draw([t])
        calls = tuple((case.half, case.step or 0) for case in cases(model, t))
        drawn.append(Drawn(t.prompt, t.seed, t.steps, t.guidance, t.picture, t.controls, calls))
        del t, outputs  # frees them before the next one is drawn
    graphs = tuple(_report(candidate, name, tensor, tally) for name in names for tensor, tally in tallies[name].items())
    return Difference(
        candidate.format, graphs, tuple(guided), tuple(pictures), tuple(drawn), subject=f"{model}.{output}"
    )


def _add_calls(tallies: Mapping[str, Tally], runner: Runner, trajectory: Trajectory, kept: str) -> list[Array]:
    """Run the recorded calls of one graph, add each output to its tally, and return the output `kept` of each call."""
    found = []
    for case in cases(runner.spec.name, trajectory):
        given = runner(case.inputs)
        for name, tally in tallies.items():
            tally.add(Comparison(case.label, case.outputs[name], given[name]))
        if kept:
            found.append(given[kept].copy())
    return found


def _report(candidate: Candidate, graph: str, tensor: str, tally: Tally) -> Verdict:
    storage, arithmetic = candidate.precision(graph)
    check = Check(Kind.COMPARED, NONE, Scope(candidate.format, storage, arithmetic))
    return tally.verdict(f"{graph}.{tensor}", check)


def _guided_db(t: Trajectory, graph: str, outputs: Sequence[Array]) -> tuple[float, ...]:
    """Return the PSNR (dB) of the guided prediction at each step of one picture. `outputs` are the candidate's, one for
    each recorded call, in the order of recording."""
    expected = guided_outputs(t)
    peak = largest(list(expected.values()))
    halves: dict[int, dict[str, Array]] = {step: {} for step in expected}
    for case, given in zip(cases(graph, t), outputs, strict=True):
        assert case.step is not None
        halves[case.step][case.half or HALVES[1]] = given
    return tuple(psnr_db(one, combine_halves(halves[step], t.guidance), peak) for step, one in expected.items())


def step_ratio(one: Runner, other: Runner, trajectory: Trajectory) -> float:
    """Return the processor time of one call of the graph `other`, such as a UNet, divided by one call of `one`: the
    median over PAIRS alternating calls."""
    inputs = next(cases(one.spec.name, trajectory)).inputs
    ratios = []
    for number in range(PAIRS + 1):
        spent = [0.0, 0.0]
        for which in (0, 1) if number % 2 else (1, 0):
            begun = process_time()
            (one, other)[which](inputs)
            spent[which] = process_time() - begun
        if number:  # the first pair only fills caches
            ratios.append(spent[1] / max(spent[0], 1e-9))
    return median(ratios)
