"""What `compare` does with the two that it is given: bundles, also failed ones, or models.

The first draws, and is recorded; the second is judged beside it, as a whole, graph by graph, and layer by layer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketdiffusion.runtime.bundle.bundle import Bundle, open_unproven, require_proof
from pocketdiffusion.runtime.engines import find_graph, graph_format
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.program import model_graph, program_graphs
from pocketdiffusion.runtime.verify.compare import (
    BundleCandidate,
    Candidate,
    Difference,
    check_shapes,
    compare,
    step_ratio,
)
from pocketdiffusion.runtime.verify.controls import compare_with, medians
from pocketdiffusion.runtime.verify.peak import peak_mb
from pocketdiffusion.runtime.verify.recorded import record_bundle
from pocketdiffusion.runtime.verify.recording import Trajectory

if TYPE_CHECKING:
    from pocketdiffusion.export.checks.layer_errors import LayerError, Layers

EXACT_BUDGET, LOSSY_BUDGET = 0.01, 0.1  # of a layer's relative error: of a recipe that is exact, of a lossy one
SHOWN = 12  # layers in a table
Say = Callable[[str], None]


@dataclass(frozen=True)
class Side:
    """One of the two. `mb` (of 1e6 bytes, the artifacts) and `peak_mb` (drawing) are 0 of a model."""

    title: str
    precision: str
    mb: float
    peak_mb: float


@dataclass(frozen=True)
class Rung:
    """A rung of the second one's ladder, as its manifest has it: the worst output's PSNR (dB) of each graph."""

    name: str
    by_graph: dict[str, float]


@dataclass(frozen=True)
class Compared:
    """`ratio` is that of the processor times of a UNet call, None where one is a model. `layers` is empty where a
    model's layers or an artifact's cannot be had, and `unnamed` says why. `cut` says which prompts were too long,
    `beside` what the median picture is beside its controls."""

    sides: tuple[Side, Side]
    recorded: Sequence[Trajectory]
    difference: Difference
    ratio: float | None
    ladder: tuple[Rung, ...]
    layers: tuple["LayerError", ...]
    budget: float
    unnamed: str
    cut: tuple[str, ...] = ()
    beside: str = ""

    @property
    def worst(self) -> list["LayerError"]:
        """The layers that add most, the worst first."""
        return sorted(self.layers, key=lambda error: -error.added)[:SHOWN]

    @property
    def blame(self) -> str:
        """The first layer over the budget, in words; empty where there is none."""
        if not self.layers:
            return ""
        from pocketdiffusion.export.checks.layer_errors import first_over

        found = first_over(self.layers, self.budget)
        if found is None:
            return ""
        error, step = found
        call = error.call(step)
        return f"first above {self.percent}: {error.graph} {error.module}" + (f", {call}" if call else "")

    @property
    def percent(self) -> str:
        """The budget, in words."""
        return f"{100 * self.budget:.3g}%"


def compare_two(
    a: str,
    b: str,
    *,
    prompts: Sequence[str] | None,
    seed: int,
    steps: int,
    guidance: float,
    format: str | None,
    budget: float | None,
    revision: str | None,
    token: str | None,
    say: Say,
    allow_unexpected: Sequence[str] = (),
) -> Compared:
    """`prompts` None are those that B was judged by, or A; of two models the gate's. `budget` None goes by B's recipe.

    Raises UserError where one cannot be opened, a bundle's proof part is not installed, or the two do not fit;
    ModuleNotFoundError where a model is given and torch is not installed.
    """
    opened = open_sides((a, b), format, revision, token, say, allow_unexpected)
    check_shapes(*opened)
    model, _ = model_graph(opened[0].program)
    bundles = [side.bundle if isinstance(side, BundleCandidate) else None for side in opened]
    reference, candidate = opened
    if isinstance(reference, BundleCandidate) or isinstance(candidate, BundleCandidate):
        lines = prompts or [t.prompt for t in next(x for x in bundles[::-1] if x is not None).manifest.golden]
    else:
        from pocketdiffusion.export.reference.record import REQUESTS

        lines = prompts or [request.prompt for request in REQUESTS]
    chosen = [(prompt, seed + number) for number, prompt in enumerate(lines)]
    if isinstance(reference, BundleCandidate):
        recorded = []
        for prompt, number in chosen:
            say(f"drawing with {a}: {prompt}")
            options: dict[str, Any] = {"seed": number, "steps": steps, "guidance": guidance}
            recorded.append(record_bundle(reference.bundle, prompt, format=reference.format, controls=True, **options))
    else:
        from pocketdiffusion.export.reference.record import Request, record
        from pocketdiffusion.export.reference.torch_candidate import ModelCandidate

        assert isinstance(reference, ModelCandidate)
        requests = [Request(prompt, seed=n, steps=steps, guidance=guidance) for prompt, n in chosen]
        drawing = lambda part: say(f"drawing with {a}: {part}")  # noqa: E731
        recorded = record(reference.checkpoint, reference.parts, requests, say=drawing, controls=True)
    difference = compare(recorded, candidate, say)
    ratio = None
    if bundles[0] is not None and bundles[1] is not None:
        say("timing")
        ratio = step_ratio(reference.open(model), candidate.open(model), recorded[0])
    say("measuring memory")
    sides = (describe(reference), describe(candidate))
    say("looking at the layers")
    layers, unnamed = find_layer_errors(reference, candidate, recorded[0])
    ladder = () if bundles[1] is None else read_ladder(bundles[1], candidate.format)
    lossy = bundles[1] is not None and find_graph(bundles[1], model, candidate.format).floor_db is not None
    if budget is None:
        budget = LOSSY_BUDGET if lossy else EXACT_BUDGET
    cut = tuple(line for prompt in dict.fromkeys(lines) for line in describe_cut(prompt, opened))
    words = compare_with(difference.median_db, medians([t.controls for t in recorded]))
    return Compared(sides, recorded, difference, ratio, ladder, tuple(layers), budget, unnamed, cut, words)


def describe_cut(prompt: str, sides: Sequence[Candidate]) -> list[str]:
    """What was cut off a prompt: one line, or one for each side where they differ; none where it fits."""
    found = {side.title: side.find_cut(prompt) for side in sides}
    if len(set(found.values())) == 1:
        found = {"": next(iter(found.values()))}
    return [
        f"the prompt {prompt!r} is too long{title and f' for {title}'}: {cut!r} was cut off"
        for title, cut in found.items()
        if cut
    ]


def open_sides(
    names: tuple[str, str],
    format: str | None,
    revision: str | None,
    token: str | None,
    say: Say,
    allow_unexpected: Sequence[str] = (),
) -> list[Candidate]:
    """Bundles' artifacts, of `format` or their first, and models, at the size of the bundle beside them and with its
    sampler where that is not the checkpoint's own, or at the size that they were trained at. Raises ProofError, naming
    the side, where a model's weight is NaN or infinite: such is never near."""
    bundles: dict[str, Candidate] = {}
    width = height = sampler = None
    for name in names:
        if (Path(name) / "manifest.json").exists():
            say(f"hashes of {name}")
            bundle = open_unproven(Path(name))
            require_proof(bundle)
            bundles[name] = BundleCandidate(bundle, graph_format(bundle, format))
            size = bundle.manifest.latents
            width, height = size.width * size.scale, size.height * size.scale
            scheduler = bundle.manifest.scheduler
            sampler = scheduler.default_sampler if scheduler.replaced else sampler
    if len(bundles) == len(set(names)):
        return [bundles[name] for name in names]
    from pocketdiffusion.export.checkpoints.weight_content import NotFiniteError

    options: dict[str, Any] = {"revision": revision, "token": token, "allow_unexpected": allow_unexpected, "say": say}
    sides, broken = [], []
    for which, name in zip("AB", names, strict=True):
        try:
            sides.append(bundles.get(name) or open_model(name, width=width, height=height, sampler=sampler, **options))
        except NotFiniteError as error:
            broken.append(f"{which} is not finite, no two to compare: {error}")
    if broken:
        raise ProofError("; ".join(broken))
    return sides


def open_model(name: str, *, say: Say, **options: Any) -> Candidate:
    """A model, with the options of `source.open_model`."""
    from pocketdiffusion import source
    from pocketdiffusion.export.reference.torch_candidate import ModelCandidate

    checkpoint, parts = source.open_model(name, say=say, **options)
    return ModelCandidate(checkpoint, parts, say)


def describe(side: Candidate) -> Side:
    """Its sizes. Draws a picture in another process, for its memory."""
    model, _ = model_graph(side.program)
    storage, arithmetic = side.precision(model)
    precision = f"{side.format}, {storage}, {arithmetic}"
    if not isinstance(side, BundleCandidate):
        return Side(f"{side.title}, the original", precision, 0, 0)
    graphs, files = side.bundle.manifest.graphs[side.format], side.bundle.manifest.files
    mb = sum(files[file].size for graph in graphs.values() for file in graph.files) / 1e6
    title = f"{side.bundle.folder.name}, {side.format} {graphs[model].recipe}"
    return Side(title, precision, mb, peak_mb(side.bundle.folder, side.format))


def read_ladder(bundle: Bundle, format: str) -> tuple[Rung, ...]:
    """The verdicts on the graphs, from the rewrites to what ships: which rung cost what."""
    found: dict[str, dict[str, float]] = {}
    for verdict in bundle.manifest.verdicts:
        graph = verdict.subject.partition(".")[0]
        if verdict.format in (None, format) and graph in bundle.manifest.graphs[format]:
            rung = found.setdefault(verdict.rung, {})
            rung[graph] = min(verdict.psnr_db, rung.get(graph, verdict.psnr_db))
    return tuple(Rung(name, by_graph) for name, by_graph in found.items())


def find_layer_errors(
    reference: Candidate, candidate: Candidate, trajectory: Trajectory
) -> tuple[list["LayerError"], str]:
    """Every layer of every graph on one drawing, or none, and why."""
    try:
        from pocketdiffusion.export.checks.layer_errors import compare_layers
    except ModuleNotFoundError as error:
        return [], f"layers are named with {error.name}: pip install 'pocketdiffusion[export]'"
    found = []
    for graph in sorted(program_graphs(candidate.program)):
        found += compare_layers(graph, open_layers_of(reference, graph), open_layers_of(candidate, graph), trajectory)
    return (
        found,
        "" if found else "no layer has a name in both: one bundle is older than these names, export it again",
    )


def open_layers_of(side: Candidate, graph: str) -> "Layers":
    """The layers of an artifact, or of an original module."""
    if isinstance(side, BundleCandidate):
        from pocketdiffusion.export.backends.taps import open_layers

        return open_layers(side.bundle.folder, side.format, find_graph(side.bundle, graph, side.format))
    from pocketdiffusion.export.checks.layer_errors import OriginalLayers
    from pocketdiffusion.export.reference.torch_candidate import ModelCandidate

    assert isinstance(side, ModelCandidate)
    return OriginalLayers(side.part(graph))
