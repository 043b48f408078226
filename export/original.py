"""Open a model and record it, which all exports of the model share."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.component import Component, check_finite, check_runs
from pocketdiffusion.export.families import components
from pocketdiffusion.export.kept_calibration import calibrate_once
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.export.prompts import requests
from pocketdiffusion.export.quantization import Calibrated
from pocketdiffusion.export.reference.kept_recordings import find_recording, keep_recording
from pocketdiffusion.export.reference.record import check_reference, record
from pocketdiffusion.export.reference.requests import PROOFS
from pocketdiffusion.export.reference.scheduler import is_own_scheduler
from pocketdiffusion.export.tile_size import TileSize
from pocketdiffusion.runtime.bundle.verdicts import ProofKind
from pocketdiffusion.runtime.progress import Note, Progress
from pocketdiffusion.runtime.sampling.samplers import check_sampler
from pocketdiffusion.runtime.verify.recording import Trajectory, first_middle_last_steps, spread_steps


@dataclass(frozen=True)
class Original:
    """A recorded model, which exports for several phones share.

    `proof`: how much was recorded. `recording`: the folder of the recording, if it is kept.
    """

    checkpoint: Checkpoint
    parts: Sequence[Component]
    trajectories: list[Trajectory]
    proof: ProofKind = "full"
    recording: Path | None = None
    _calibrated: list[Calibrated] = field(default_factory=list, init=False, repr=False)

    @cached_property
    def few(self) -> list[Trajectory]:
        """Return the drawings with the first, the middle and the last step only."""
        return [first_middle_last_steps(trajectory) for trajectory in self.trajectories]

    @cached_property
    def for_rungs(self) -> list[Trajectory]:
        """Return the drawings with the steps that are compared on the rungs below the artifact."""
        return [spread_steps(trajectory, PROOFS[self.proof].rung_steps) for trajectory in self.trajectories]

    def calibrated(self, progress: Progress = lambda line: None) -> Calibrated:
        """Return the statistics of the model's activations on the calibration prompts, measured at the first use unless
        they are kept beside the recording."""
        if not self._calibrated:
            wanted = requests("calibration")
            home = None if self.recording is None else self.recording.parent
            note = lambda line: progress(f"calibrating: {line}")  # noqa: E731
            self._calibrated.append(calibrate_once(self.checkpoint, self.parts, wanted, home, note))
        return self._calibrated[0]


def open_model(
    model: str,
    *,
    width: int | None = None,
    height: int | None = None,
    revision: str | None = None,
    token: str | None = None,
    allow_unexpected: Sequence[str] = (),
    sampler: str | None = None,
    split_unet: int = 1,
    tiles: TileSize | None = None,
    progress: Progress = lambda line: None,
) -> tuple[Checkpoint, Sequence[Component]]:
    """Return the checkpoint and its components, with the arguments of `export`. `sampler` replaces the checkpoint's
    scheduler, unless both are the same. Raise UserError, before any long work, if a module does not run or the size,
    the sampler, the number of the UNet's parts or the size of the decoder's tiles is not possible, and if a weight is
    not finite."""
    if sampler is not None:
        check_sampler(sampler)
    noting = lambda line: progress(Note(line))  # noqa: E731  # notes on ignored tensors stay on the screen
    opened = open_checkpoint(model, revision=revision, token=token, allow_unexpected=allow_unexpected, progress=noting)
    checkpoint = opened if sampler is None or is_own_scheduler(opened, sampler) else replace(opened, sampler=sampler)
    parts = components(checkpoint, width=width, height=height, split_unet=split_unet, tiles=tiles, progress=noting)
    check_reference(checkpoint, parts)
    for part in parts:
        check_runs(part)
    if checkpoint.nbytes > 1e9:
        progress(f"{checkpoint.name}: reading {checkpoint.nbytes / 1e9:.1f} GB of weights")
    check_finite(checkpoint.content, parts)
    return checkpoint, parts


def record_original(
    checkpoint: Checkpoint,
    parts: Sequence[Component],
    progress: Progress = lambda line: None,
    proof: ProofKind = "full",
    recordings: Path | None = None,
) -> Original:
    """Return the model with its drawings of the gate's prompts, recorded with diffusers' own pipeline. `proof` decides
    how many there are (export/reference/requests.py). In the folder `recordings` they are kept, and found again."""
    wanted = PROOFS[proof]
    folder, found = (None, None) if recordings is None else find_recording(recordings, checkpoint, parts, wanted)
    if found is not None:
        progress(f"reading the recording of {checkpoint.name} in {recordings}")
        return Original(checkpoint, parts, found, proof, folder)
    note = lambda line: progress(f"recording the original: {line}")  # noqa: E731
    trajectories = record(checkpoint, parts, wanted.requests, note, controls=wanted.controls)
    if folder is not None:
        try:
            keep_recording(folder, trajectories)
        except OSError as error:  # the export needs the drawings, not their copy
            progress(Note(f"the recording of {checkpoint.name} is not kept in {recordings}: {error.strerror}"))
            folder = None
    return Original(checkpoint, parts, trajectories, proof, folder)
