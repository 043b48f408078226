"""The gate on a stand-in: each graph of a bundle is run there, in each of its arithmetics, and judged as on the host.

Graphs are teacher-forced on the first recorded picture: its first, middle and last step, both halves of guidance. Then
that prompt is drawn in a few steps, and compared with the host's picture of the same steps. The other parts of the
pipeline are the same numpy everywhere, and are judged only on the host.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from pocketdiffusion.runtime.bundle.bundle import Bundle
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.bundle.verdicts import Verdict
from pocketdiffusion.runtime.devices.child import ChildRunner, Launch
from pocketdiffusion.runtime.devices.facts import StandinFacts
from pocketdiffusion.runtime.devices.standins import load_standin
from pocketdiffusion.runtime.engines import find_engine, find_graph, open_graph
from pocketdiffusion.runtime.engines.facts import StandinRun
from pocketdiffusion.runtime.engines.io_adapter import AdaptedRunner
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.program import DECODE, find_producer, model_graph
from pocketdiffusion.runtime.progress import Progress
from pocketdiffusion.runtime.runner import Runner
from pocketdiffusion.runtime.vae_tiles import cut_decoded
from pocketdiffusion.runtime.verify.check import Scope, scope_of
from pocketdiffusion.runtime.verify.gate import judge_graph
from pocketdiffusion.runtime.verify.pictures import draw_again, draw_pictures, judge_pictures
from pocketdiffusion.runtime.verify.recording import Trajectory, first_middle_last_steps
from pocketdiffusion.runtime.verify.skipped import NotRun
from pocketdiffusion.runtime.verify.tolerances import check_artifact

STEPS = 4  # of the picture


@dataclass(frozen=True)
class Standin:
    """A place to run graphs: `device` is a key of `EngineFacts.standin_runs`, `facts` is its record, `core` qemu's name
    of the processor that arm64 emulates."""

    device: str
    launch: Launch
    facts: StandinFacts
    core: str = ""

    def open(self, folder: Path, way: StandinRun, graph: Graph) -> Runner:
        """Open a graph below `folder`. Raise ProofError if the stand-in cannot load it, ends or exceeds the time
        limit; UserError if its processor lacks what phones have."""
        file_spec = graph.file_spec or graph.spec
        child = ChildRunner(self.launch, way.engine, folder / graph.path, file_spec)
        self.facts.check(child, self.core)
        return child if graph.file_spec is None else AdaptedRunner(graph.spec, child, graph.transposes)


def find_place(device: str, standins: Path, core: str, seconds: float) -> Standin:
    """Return the stand-in `device` below the folder `standins`. Raise UserError if there is no such stand-in, or it
    is missing or incomplete."""
    facts = load_standin(device)
    return Standin(device, facts.launch(standins, core, seconds), facts, core)


def judge_on(
    place: Standin,
    bundle: Bundle,
    trajectories: Sequence[Trajectory],
    progress: Progress = lambda line: None,
) -> tuple[list[Verdict], list[NotRun]]:
    """Judge every graph of every format, in each way that `place` runs it, and a picture. Return the verdicts and what
    was not run. Raise ProofError if a graph cannot be run there although it ships for that device."""
    reports: list[Verdict] = []
    skipped: list[NotRun] = []
    for format in bundle.manifest.graphs:
        facts = find_engine(format)
        ways = () if facts is None else facts.standin_runs.get(place.device, ())
        left_out = ("-", "no engine of this format is there") if not ways else None
        if facts is not None and place.device in facts.not_run:
            left_out = facts.not_run[place.device]
        if left_out is not None:
            skipped.append(NotRun("all", format, place.device, *left_out))
        for way in ways:
            judged, not_run = _judge_way(place, bundle, trajectories[0], format, way, progress)
            reports += judged
            skipped += not_run
    return reports, skipped


def _judge_way(
    place: Standin,
    bundle: Bundle,
    trajectory: Trajectory,
    format: str,
    way: StandinRun,
    progress: Progress,
) -> tuple[list[Verdict], list[NotRun]]:
    reports: list[Verdict] = []
    skipped: list[NotRun] = []
    graphs = {name: find_graph(bundle, name, format) for name in bundle.manifest.graphs[format]}

    @cache
    def opened(name: str) -> Runner:
        return place.open(bundle.folder, way, graphs[name])

    for name, graph in graphs.items():
        progress(f"{format} {name} on {place.launch.title}, {way.arithmetic}")
        try:
            runner = opened(name)
        except ProofError as error:  # pictures then run it on the host, as an app does on the CPU
            if (
                not place.facts.refuses
                or place.facts.refuses not in str(error)
                or graph.compute_unit == place.facts.unit
            ):
                raise
            skipped.append(
                NotRun(name, format, place.device, way.arithmetic, f"it is for {graph.compute_unit}: {error}")
            )
            continue
        scope = replace(scope_of(format, graph), arithmetic=way.arithmetic, device=place.device, unit=place.facts.unit)
        check = check_artifact(scope, graph, bundle.manifest.verdicts)
        reports += judge_graph(check, runner, [first_middle_last_steps(trajectory)])
    on_host = {row.subject for row in skipped}
    model, _ = model_graph(bundle.manifest.program)
    if model in on_host:
        skipped.append(NotRun("pictures", format, place.device, way.arithmetic, f"its {model} is not run there"))
        return reports, skipped

    def opener(bundle: Bundle, name: str, format: str) -> Runner:
        return open_graph(bundle, name, format) if name in on_host else opened(name)

    progress(f"{format} picture on {place.launch.title}, {way.arithmetic}")
    (drawn,) = draw_pictures(bundle, [draw_on_host(bundle, trajectory, format)], format, opener)
    scope = Scope(format, arithmetic=way.arithmetic, device=place.device, unit=place.facts.unit)
    return reports + judge_pictures([drawn], graphs.values(), scope)[1:], skipped


def draw_on_host(bundle: Bundle, trajectory: Trajectory, format: str) -> Trajectory:
    """Draw the trajectory's prompt with the host's runners in `STEPS` steps. Return the trajectory with the `latents`,
    `picture` and decoded output of this drawing; all other data are the original's."""
    after, decoded, picture = draw_again(bundle, trajectory, format, steps=STEPS)
    latents = np.concatenate([trajectory.latents[:1], *after])
    graph, tensor = find_producer(trajectory.program, DECODE, "decoded") or ("", "")
    tiles = [decoded] if trajectory.tiling is None else cut_decoded(trajectory.tiling, decoded)
    drawn = tuple(
        replace(case, outputs={**case.outputs, tensor: tile})
        for case, tile in zip(trajectory.calls[graph], tiles, strict=True)
    )
    return replace(trajectory, steps=STEPS, latents=latents, picture=picture, calls={**trajectory.calls, graph: drawn})
