"""Compare two bundles, also failed ones, or models.

The first draws prompt after prompt and is recorded; the second is compared with each recording in whole pictures, graph
by graph, and on the first prompt layer by layer. No recording but the first is kept.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketdiffusion.runtime.bundle.bundle import Bundle, open_unproven, require_proof
from pocketdiffusion.runtime.engines import find_graph, graph_format
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.noise import TorchRandom
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
    """One of the two. `mb` is the size of its graphs, `peak_mb` the peak memory of a process that only draws with it,
    both in MB of 1e6 bytes and 0 for a model."""

    title: str
    precision: str
    mb: float
    peak_mb: float


@dataclass(frozen=True)
class Rung:
    """A rung of the ladder of B's own export: the PSNR (dB) of the worst output of each graph, from its manifest."""

    name: str
    by_graph: dict[str, float]


@dataclass(frozen=True)
class Compared:
    """What was found. `ratio` is the processor time of a call of B's denoiser over A's, None where one is a model.
    `layers` is empty where the layers of a model or an artifact have no names, and `unnamed` says why. `budget` is the
    relative error of a layer above which it is named. `cut` says which prompts were too long. `beside` compares the
    median picture with its controls, in words."""

    sides: tuple[Side, Side]
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
        """The layers that add most to the error of the layer before them, the worst first."""
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
    """Draw `prompts` with A, each with the next seed from `seed` on, and compare B with every recording.

    `prompts` None takes the prompts that B was proved by, or A; of two models the gate's own. `budget` None depends on
    B's recipe. Raises UserError where one cannot be opened, a bundle's proof part is not installed, the two do not fit,
    or a seed is out of range; ModuleNotFoundError where a model is given and torch is not installed.
    """
    TorchRandom(seed)  # raises
    reference, candidate = open_sides((a, b), format, revision, token, say, allow_unexpected)
    check_shapes(reference, candidate)
    lines = prompts or own_prompts(reference, candidate)
    TorchRandom(seed + len(lines) - 1)  # raises
    cut = tuple(line for prompt in dict.fromkeys(lines) for line in describe_cut(prompt, (reference, candidate)))
    chosen = [(prompt, seed + number) for number, prompt in enumerate(lines)]
    recorded = record_each(reference, chosen, steps, guidance, say)
    first = next(recorded)
    difference = compare(chain([first], recorded), candidate, say)
    say("timing the denoisers")
    ratio = time_ratio(reference, candidate, first)
    say("measuring memory")
    sides = (describe(reference), describe(candidate))
    say("comparing layers")
    layers, unnamed = find_layer_errors(reference, candidate, first)
    ladder = read_ladder(candidate.bundle, candidate.format) if isinstance(candidate, BundleCandidate) else ()
    if budget is None:
        budget = LOSSY_BUDGET if is_lossy(candidate) else EXACT_BUDGET
    beside = compare_with(difference.median_db, medians([drawn.controls for drawn in difference.drawn]))
    return Compared(sides, difference, ratio, ladder, tuple(layers), budget, unnamed, cut, beside)


def own_prompts(reference: Candidate, candidate: Candidate) -> list[str]:
    """Return the prompts that B was proved by, else A; of two models the gate's own."""
    for side in (candidate, reference):
        if isinstance(side, BundleCandidate):
            return [trajectory.prompt for trajectory in side.bundle.manifest.golden]
    from pocketdiffusion.export.reference.record import REQUESTS

    return [request.prompt for request in REQUESTS]


def record_each(
    reference: Candidate, chosen: Sequence[tuple[str, int]], steps: int, guidance: float, say: Say
) -> Iterator[Trajectory]:
    """Draw each prompt with its seed when the next recording is asked for; three controls are drawn beside each."""
    for number, (prompt, seed) in enumerate(chosen, 1):
        say(f"drawing with {reference.title}: prompt {number} of {len(chosen)}, {prompt}")
        if isinstance(reference, BundleCandidate):
            options: dict[str, Any] = {"seed": seed, "steps": steps, "guidance": guidance}
            yield record_bundle(reference.bundle, prompt, format=reference.format, controls=True, **options)
        else:
            from pocketdiffusion.export.reference.record import Request, record
            from pocketdiffusion.export.reference.torch_candidate import ModelCandidate

            assert isinstance(reference, ModelCandidate)
            request = Request(prompt, seed=seed, steps=steps, guidance=guidance)
            yield from record(reference.checkpoint, reference.parts, [request], controls=True)


def time_ratio(reference: Candidate, candidate: Candidate, trajectory: Trajectory) -> float | None:
    """Return the processor time of a call of B's denoiser over A's; None where one is a model."""
    if not (isinstance(reference, BundleCandidate) and isinstance(candidate, BundleCandidate)):
        return None
    model, _ = model_graph(reference.program)
    return step_ratio(reference.open(model), candidate.open(model), trajectory)


def is_lossy(candidate: Candidate) -> bool:
    """Return whether it is a bundle whose denoiser is stored by a lossy recipe, which states floors of its own."""
    if not isinstance(candidate, BundleCandidate):
        return False
    model, _ = model_graph(candidate.program)
    return find_graph(candidate.bundle, model, candidate.format).floor_db is not None


def describe_cut(prompt: str, sides: Sequence[Candidate]) -> list[str]:
    """Return what was cut off a prompt: one line, or one for each side where they differ; none where it fits."""
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
    """Open the artifacts of bundles, of `format` or their first, and models: at the size of the bundle beside them and
    with its sampler where that is not the checkpoint's own, else at the size that they were trained at. Raises
    ProofError, naming the side, where a weight of a model is NaN or infinite."""
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
    """Open a model with the options of `source.open_model`."""
    from pocketdiffusion import source
    from pocketdiffusion.export.reference.torch_candidate import ModelCandidate

    checkpoint, parts = source.open_model(name, say=say, **options)
    return ModelCandidate(checkpoint, parts, say)


def describe(side: Candidate) -> Side:
    """Return its precision and sizes. Draws a picture in another process to measure the memory of drawing alone."""
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
    """Return the verdicts on the graphs by rung, from the rewrites to what ships: which rung costs what."""
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
    """Return the errors of every layer of every graph on one drawing; where there are none, the reason too."""
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
    """Return what runs the layers of an artifact, or of an original module."""
    if isinstance(side, BundleCandidate):
        from pocketdiffusion.export.backends.taps import open_layers

        return open_layers(side.bundle.folder, side.format, find_graph(side.bundle, graph, side.format))
    from pocketdiffusion.export.checks.layer_errors import OriginalLayers
    from pocketdiffusion.export.reference.torch_candidate import ModelCandidate

    assert isinstance(side, ModelCandidate)
    return OriginalLayers(side.part(graph))
