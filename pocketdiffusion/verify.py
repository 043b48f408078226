"""Verify a bundle against its recorded data or against a model, on this machine or on a stand-in for a phone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pocketdiffusion.quantize.stated_floors import check_floors
from pocketdiffusion.runtime.bundle.arrays import map_array
from pocketdiffusion.runtime.bundle.bundle import Bundle, open_bundle
from pocketdiffusion.runtime.bundle.verdicts import Verdict, first_to_report
from pocketdiffusion.runtime.devices.judge import find_place, judge_on
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.progress import Progress
from pocketdiffusion.runtime.verify.compare import other_shapes
from pocketdiffusion.runtime.verify.conformance import judge_conformance
from pocketdiffusion.runtime.verify.contradictions import check_contradictions
from pocketdiffusion.runtime.verify.gate import judge
from pocketdiffusion.runtime.verify.golden import read_golden
from pocketdiffusion.runtime.verify.recording import Trajectory
from pocketdiffusion.runtime.verify.self_test import NOT_JUDGED, judge_runtime_part
from pocketdiffusion.runtime.verify.skipped import NotRun, units_not_run

if TYPE_CHECKING:
    from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint

HOST = "host"  # this machine; the other devices are stand-ins for phones


@dataclass(frozen=True)
class DeviceChoice:
    """The device that runs the graphs. For a stand-in, `standins`: folder in which stand-ins are installed, `core`: CPU
    that arm64 emulates (qemu's name, None for the target's own), `limit`: seconds for one call of a graph."""

    device: str = HOST
    standins: Path = Path()
    core: str | None = None
    limit: float = 300


@dataclass(frozen=True)
class Model:
    """The original to record again: a built-in name, a diffusers folder or a hub id, with the options to open it."""

    name: str
    revision: str | None = None
    token: str | None = None
    allow_unexpected: Sequence[str] = ()


@dataclass(frozen=True)
class Verified:
    """The result of verify. `reasons`: by subject of a conformance vector, the mistake of a reader that fails it.
    `not_judged`: the checks that need the proof part, if it is not installed, else "". `controls`: for each prompt, the
    PSNR (dB) of the original's control pictures."""

    bundle: Bundle
    device: str
    verdicts: Sequence[Verdict]
    skipped: Sequence[NotRun] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)
    not_judged: str = ""
    controls: Sequence[Mapping[str, float]] = ()


def verify(
    folder: Path,
    *,
    against: Model | None = None,
    place: DeviceChoice = DeviceChoice(),
    progress: Progress = lambda line: None,
) -> Verified:
    """Return the verdicts on the bundle in `folder`, run on `place`: file hashes, stages, graphs, complete pictures.

    `against`: a model to record again and compare with, instead of the recorded data of the bundle. A runtime part is
    judged by its conformance vectors, one golden case for each graph and one picture. Raise UserError if there is no
    such bundle or stand-in, or `against` is another model; ProofError if the bundle is corrupt or contradicts itself.
    """
    progress("hashes")
    bundle = open_bundle(folder)
    checkpoint = None
    trajectories: list[Trajectory] = []
    if against is not None:
        checkpoint, trajectories = record_model(bundle, against, place.device == HOST, progress)
    elif bundle.manifest.has_proof or place.device != HOST:
        trajectories = read_golden(bundle, map_array)
    if place.device == HOST:
        return _judge_here(bundle, trajectories, checkpoint, progress)
    core = place.core or core_of(bundle.manifest.target.name)
    standin = find_place(place.device, place.standins, core, place.limit)
    verdicts, skipped = judge_on(standin, bundle, trajectories, progress)
    return Verified(bundle, place.device, verdicts, skipped)


def _judge_here(
    bundle: Bundle, trajectories: list[Trajectory], checkpoint: "Checkpoint | None", progress: Progress
) -> Verified:
    """Return the verdicts on this machine; if `trajectories` is empty, those on the runtime part only."""
    progress("contradictions")
    check_contradictions(bundle)
    check_floors(bundle)
    verdicts = judge(bundle, trajectories, progress)[0] if trajectories else judge_runtime_part(bundle, progress)
    vectors, reasons = judge_conformance(bundle, progress=progress)
    if checkpoint is not None:
        progress("conformance vectors, computed again")
        vectors += _judge_fresh_vectors(bundle, checkpoint)
    return Verified(
        bundle,
        HOST,
        [*verdicts, *vectors],
        units_not_run(bundle.manifest),
        reasons,
        "" if trajectories else NOT_JUDGED,
        [trajectory.controls for trajectory in trajectories],
    )


def _judge_fresh_vectors(bundle: Bundle, checkpoint: "Checkpoint") -> list[Verdict]:
    """Return the verdicts on conformance vectors that the original libraries compute now."""
    from pocketdiffusion.export.conformance import write_conformance

    with TemporaryDirectory() as folder:
        write_conformance(Path(folder), checkpoint)
        return judge_conformance(bundle, recomputed=Path(folder))[0]


def record_model(
    bundle: Bundle, model: Model, controls: bool, progress: Progress
) -> tuple["Checkpoint", list[Trajectory]]:
    """Return the checkpoint of `model` and its drawings at the bundle's size and with its sampler. Raise UserError if
    the shapes of its graphs are not the bundle's; ModuleNotFoundError if torch is not installed."""
    from pocketdiffusion.export.families.parts.split import count_parts
    from pocketdiffusion.export.families.parts.tiles import stated_tiles
    from pocketdiffusion.export.original import open_model
    from pocketdiffusion.export.reference.record import record
    from pocketdiffusion.export.reference.requests import PROOFS

    latents, scheduler = bundle.manifest.latents, bundle.manifest.scheduler
    checkpoint, parts = open_model(
        model.name,
        width=latents.width * latents.scale,
        height=latents.height * latents.scale,
        revision=model.revision,
        token=model.token,
        sampler=scheduler.default_sampler if scheduler.replaced else None,
        split_unet=count_parts(bundle.manifest.program),
        tiles=stated_tiles(bundle.manifest.vae),
        allow_unexpected=model.allow_unexpected,
        progress=progress,
    )
    graphs = next(iter(bundle.manifest.graphs.values()))
    specs = {part.spec.name: part.spec for part in parts}, {name: graph.spec for name, graph in graphs.items()}
    for name, theirs, ours in other_shapes(*specs):
        raise UserError(
            f"{model.name} is not the model of {bundle.folder}: the shape of {name} is {list(theirs)} in the "
            f"model and {list(ours)} in the bundle; give --against the checkpoint that was exported"
        )
    proof = PROOFS[bundle.manifest.proof_kind]
    names = proof.controls if controls else ()
    return checkpoint, record(checkpoint, parts, proof.requests, progress, controls=names)


def check_verified(found: Verified) -> None:
    """Raise ProofError, which names the most informative failed verdict, if one failed; UserError if nothing was
    run."""
    failed = [verdict for verdict in found.verdicts if not verdict.passed]
    if failed:
        first = first_to_report(failed)
        reason = f"; {found.reasons[first.subject]}" if first.subject in found.reasons else ""
        raise ProofError(
            f"{found.bundle.folder}: {first.describe()}; {len(failed)} of {len(found.verdicts)} verdicts failed{reason}"
        )
    if not found.verdicts:
        raise UserError(f"{found.bundle.folder}: no graph was run on {found.device}: {found.skipped[0].reason}")


def core_of(target: str) -> str:
    """Return the CPU model of the target by its name in qemu; if the target states none, `arm64.CORE`."""
    from pocketdiffusion.export.targets import load_target, target_names
    from pocketdiffusion.runtime.devices.standins.arm64 import CORE

    return (load_target(target).core if target in target_names() else None) or CORE
