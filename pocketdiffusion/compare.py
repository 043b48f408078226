"""Compare two bundles (failed ones too) or models.

A draws each prompt and is recorded; B is compared with each recording in complete pictures and graph by graph, and with
the first recording layer by layer. Only the first recording is kept.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketdiffusion.runtime.bundle.bundle import Bundle, open_unproven, require_proof
from pocketdiffusion.runtime.engines import find_graph, graph_format
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.noise import TorchRandom
from pocketdiffusion.runtime.program import model_graph, program_graphs
from pocketdiffusion.runtime.progress import Progress
from pocketdiffusion.runtime.verify.compare import (
    BundleCandidate,
    Candidate,
    Difference,
    check_shapes,
    compare,
    step_ratio,
)
from pocketdiffusion.runtime.verify.controls import ALL as CONTROLS
from pocketdiffusion.runtime.verify.controls import compare_with, medians
from pocketdiffusion.runtime.verify.peak import peak_mb
from pocketdiffusion.runtime.verify.recorded import record_bundle
from pocketdiffusion.runtime.verify.recording import Trajectory

if TYPE_CHECKING:
    from pocketdiffusion.export.checks.layer_errors import LayerError, Layers

EXACT_BUDGET, LOSSY_BUDGET = 0.01, 0.1  # limits of a layer's relative error, for exact and for lossy recipes
SHOWN = 12  # layers in a table


@dataclass(frozen=True)
class Side:
    """A or B of a comparison. `mb`: size of its graphs, `peak_mb`: peak memory of a process that only draws with it,
    both in MB of 1e6 bytes, and 0 for a model."""

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
    """The result of a comparison. `time_ratio`: processor time of a call of B's denoiser over A's, None if one is a
    model. `layers`: empty if the layers of a side have no names, and `no_layers_reason` states the reason. `budget`:
    relative error above which a layer is named. `truncated`: lines on prompts that are too long. `against_controls`: a
    clause that compares the median picture with its controls."""

    sides: tuple[Side, Side]
    difference: Difference
    time_ratio: float | None
    ladder: tuple[Rung, ...]
    layers: tuple["LayerError", ...]
    budget: float
    no_layers_reason: str
    truncated: tuple[str, ...] = ()
    against_controls: str = ""

    @property
    def worst(self) -> list["LayerError"]:
        """Return the layers that add most to the error of the layer before them, the worst first."""
        return sorted(self.layers, key=lambda error: -error.added)[:SHOWN]

    @property
    def first_bad_layer(self) -> str:
        """Return a clause that names the first layer over the budget, "" if there is none."""
        if not self.layers:
            return ""
        from pocketdiffusion.export.checks.layer_errors import first_over

        found = first_over(self.layers, self.budget)
        if found is None:
            return ""
        error, step = found
        call = error.call(step)
        return f"first above {self.budget_text}: {error.graph} {error.module}" + (f", {call}" if call else "")

    @property
    def budget_text(self) -> str:
        """Return the budget as text, such as "10%"."""
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
    progress: Progress,
    allow_unexpected: Sequence[str] = (),
) -> Compared:
    """Return the comparison of B with A, which draws `prompts`, the first with `seed` and each further with the next
    seed.

    `prompts` None: the recorded prompts of B, else of A; of two models, the gate's own. `budget` None: see
    `default_budget`. Raise UserError if a side cannot be opened, a bundle's proof part is not installed, the shapes of
    both differ, or a seed is out of range; ModuleNotFoundError if a model is given and torch is not installed.
    """
    TorchRandom(seed)  # raises, before anything is opened
    reference, candidate = open_sides((a, b), format, revision, token, progress, allow_unexpected)
    check_shapes(reference, candidate)
    lines = prompts or own_prompts(reference, candidate)
    cut = tuple(line for prompt in dict.fromkeys(lines) for line in describe_cut(prompt, (reference, candidate)))
    recorded = record_each(reference, number_prompts(lines, seed), steps, guidance, progress)
    first = next(recorded)
    difference = compare(chain([first], recorded), candidate, progress)
    progress("timing the denoisers")
    ratio = time_ratio(reference, candidate, first)
    progress("measuring memory")
    sides = (describe(reference), describe(candidate))
    progress("comparing layers")
    layers, unnamed = find_layer_errors(reference, candidate, first)
    ladder = read_ladder(candidate.bundle, candidate.format) if isinstance(candidate, BundleCandidate) else ()
    budget = default_budget(candidate) if budget is None else budget
    against_controls = compare_with(difference.median_db, medians([drawn.controls for drawn in difference.drawn]))
    return Compared(sides, difference, ratio, ladder, tuple(layers), budget, unnamed, cut, against_controls)


def own_prompts(reference: Candidate, candidate: Candidate) -> list[str]:
    """Return the recorded prompts of B, or of A if B is a model; of two models, the gate's own."""
    for side in (candidate, reference):
        if isinstance(side, BundleCandidate):
            return [trajectory.prompt for trajectory in side.bundle.manifest.golden]
    from pocketdiffusion.export.reference.record import REQUESTS

    return [request.prompt for request in REQUESTS]


def number_prompts(prompts: Sequence[str], seed: int) -> list[tuple[str, int]]:
    """Return each prompt with its seed, the first with `seed`. Raise UserError if a seed is out of range."""
    TorchRandom(seed + len(prompts) - 1)
    return [(prompt, seed + number) for number, prompt in enumerate(prompts)]


def record_each(
    reference: Candidate, chosen: Sequence[tuple[str, int]], steps: int, guidance: float, progress: Progress
) -> Iterator[Trajectory]:
    """Yield the recording of each prompt with its seed, drawn when it is requested, with three controls."""
    for number, (prompt, seed) in enumerate(chosen, 1):
        progress(f"drawing with {reference.title}: prompt {number} of {len(chosen)}, {prompt}")
        if isinstance(reference, BundleCandidate):
            options: dict[str, Any] = {"seed": seed, "steps": steps, "guidance": guidance}
            yield record_bundle(reference.bundle, prompt, format=reference.format, controls=True, **options)
        else:
            from pocketdiffusion.export.reference.record import Request, record
            from pocketdiffusion.export.reference.torch_candidate import ModelCandidate

            assert isinstance(reference, ModelCandidate)
            request = Request(prompt, seed=seed, steps=steps, guidance=guidance)
            yield from record(reference.checkpoint, reference.parts, [request], controls=CONTROLS)


def time_ratio(reference: Candidate, candidate: Candidate, trajectory: Trajectory) -> float | None:
    """Return the processor time of a call of B's denoiser over A's; None if one is a model."""
    if not (isinstance(reference, BundleCandidate) and isinstance(candidate, BundleCandidate)):
        return None
    model, _ = model_graph(reference.program)
    return step_ratio(reference.open(model), candidate.open(model), trajectory)


def default_budget(candidate: Candidate) -> float:
    """Return the limit of a layer's relative error for the recipe of `candidate`."""
    return LOSSY_BUDGET if is_lossy(candidate) else EXACT_BUDGET


def is_lossy(candidate: Candidate) -> bool:
    """Return True if `candidate` is a bundle whose denoiser has a lossy recipe, which states its own floors."""
    if not isinstance(candidate, BundleCandidate):
        return False
    model, _ = model_graph(candidate.program)
    return find_graph(candidate.bundle, model, candidate.format).floor_db is not None


def describe_cut(prompt: str, sides: Sequence[Candidate]) -> list[str]:
    """Return lines on the text that was cut off a prompt: none if it fits, one, or one for each side if they differ."""
    found = {side.title: side.find_truncated(prompt) for side in sides}
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
    progress: Progress,
    allow_unexpected: Sequence[str] = (),
) -> list[Candidate]:
    """Return A and B, opened. A bundle runs `format`, None for its first. A model has the size of the bundle that it is
    compared with, the parts of its UNet, the tiles of its VAE, and its sampler if the bundle replaces the checkpoint's
    own; without a bundle, the size that it was trained at. Raise ProofError, which names the side, if a model has a
    weight of NaN or infinity.
    """
    bundles: dict[str, Candidate] = {}
    width = height = sampler = vae = None
    for name in names:
        if (Path(name) / "manifest.json").exists():
            progress(f"hashes of {name}")
            bundle = open_unproven(Path(name))
            require_proof(bundle)
            bundles[name] = BundleCandidate(bundle, graph_format(bundle, format))
            size, vae = bundle.manifest.latents, bundle.manifest.vae
            width, height = size.width * size.scale, size.height * size.scale
            scheduler = bundle.manifest.scheduler
            sampler = scheduler.default_sampler if scheduler.replaced else sampler
    if len(bundles) == len(set(names)):
        return [bundles[name] for name in names]
    from pocketdiffusion.export.checkpoints.weight_content import NotFiniteError
    from pocketdiffusion.export.families.parts.split import count_parts
    from pocketdiffusion.export.families.parts.tiles import stated_tiles

    options: dict[str, Any] = {
        "revision": revision,
        "token": token,
        "allow_unexpected": allow_unexpected,
        "tiles": None if vae is None else stated_tiles(vae),
        "split_unet": max((count_parts(side.program) for side in bundles.values()), default=1),
        "progress": progress,
    }
    sides, broken = [], []
    for which, name in zip("AB", names, strict=True):
        try:
            sides.append(bundles.get(name) or open_model(name, width=width, height=height, sampler=sampler, **options))
        except NotFiniteError as error:
            broken.append(f"{which} cannot be compared, because a weight is NaN or infinite: {error}")
    if broken:
        raise ProofError("; ".join(broken))
    return sides


def open_model(name: str, *, progress: Progress, **options: Any) -> Candidate:
    """Return a model, opened with the options of `original.open_model`."""
    from pocketdiffusion.export import original
    from pocketdiffusion.export.reference.torch_candidate import ModelCandidate

    checkpoint, parts = original.open_model(name, progress=progress, **options)
    return ModelCandidate(checkpoint, parts, progress)


def describe(side: Candidate) -> Side:
    """Return title, precision, size and memory. The memory is measured in another process that only draws a picture."""
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
    """Return the PSNR of each graph by rung, from the rewrites to the shipped artifact."""
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
    """Return the errors of every layer of every graph on one drawing, and the reason if there are none, else ""."""
    try:
        from pocketdiffusion.export.checks.layer_errors import compare_layers
    except ModuleNotFoundError as error:
        return [], f"comparing layers needs {error.name}: pip install 'pocketdiffusion[export]'"
    found = []
    for graph in sorted(program_graphs(candidate.program)):
        found += compare_layers(graph, open_layers_of(reference, graph), open_layers_of(candidate, graph), trajectory)
    return (
        found,
        ""
        if found
        else "A and B have no layer names in common, probably because one was exported by an older version: export "
        "that one again",
    )


def open_layers_of(side: Candidate, graph: str) -> "Layers":
    """Return a runner of the layers of an artifact, or of a module of the original."""
    if isinstance(side, BundleCandidate):
        from pocketdiffusion.export.backends.intermediate_outputs import open_layers

        return open_layers(side.bundle.folder, side.format, find_graph(side.bundle, graph, side.format))
    from pocketdiffusion.export.checks.layer_errors import OriginalLayers
    from pocketdiffusion.export.reference.torch_candidate import ModelCandidate

    assert isinstance(side, ModelCandidate)
    return OriginalLayers(side.part(graph))
