"""Recordings of the original that stay on disk, so that an export of the same model for another phone, format or recipe
does not draw them again.

A recording lies in a folder that is named by a digest of everything that decides it. It is used only if every file has
the digest that was stored when it was written.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import mkdtemp

from pydantic import ValidationError

from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.families import program
from pocketdiffusion.export.families.parts.tiles import tiling_of
from pocketdiffusion.export.reference.recording_facts import recording_facts
from pocketdiffusion.export.reference.requests import Proof
from pocketdiffusion.runtime.bundle.arrays import map_array
from pocketdiffusion.runtime.bundle.golden_records import Trajectory as Recorded
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.record import BundlePath, Record, Sha256
from pocketdiffusion.runtime.verify.golden import read_trajectory, write_golden
from pocketdiffusion.runtime.verify.recording import Trajectory

RECORDING_VERSION = 1
"""The version of the recording, a part of every key. Increment it with each change of code that changes the recorded
numbers of the same model, requests and libraries, or the form in which they are stored."""
LARGEST = 8_000_000_000  # bytes of all recordings: those that were not used for the longest time are removed
_INDEX = "recording.json"


class KeptRecording(Record):
    """The file recording.json: the drawings, and the digest of each file."""

    drawings: tuple[Recorded, ...]
    files: dict[BundlePath, Sha256]


def find_recording(
    home: Path, checkpoint: Checkpoint, parts: Sequence[Component], proof: Proof
) -> tuple[Path, list[Trajectory] | None]:
    """Return the folder in `home` of the recording of a checkpoint for `proof`, named by the SHA-256 (hex) of all that
    decides it, and the recording with its arrays as mapped pages: None if there is none, or if one of its files has
    changed."""
    facts = {
        "version": RECORDING_VERSION,
        "facts": recording_facts(checkpoint, parts, proof.requests),
        "graphs": [asdict(part.spec) for part in parts],
        "controls": sorted(proof.controls),
    }
    tiling, drawn = tiling_of(parts), program(checkpoint, parts)
    facts["program"] = drawn.model_dump(mode="json")
    folder = home / hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
    try:
        kept = KeptRecording.model_validate_json((folder / _INDEX).read_text(encoding="utf-8"))
        if any(digest_file(folder / path) != digest for path, digest in kept.files.items()):
            return folder, None
        os.utime(folder)
        found = (read_trajectory(folder, n, each, drawn, map_array) for n, each in enumerate(kept.drawings))
        return folder, [replace(each, tiling=tiling) for each in found]
    except (OSError, UnicodeDecodeError, ValidationError, ProofError):
        return folder, None


def keep_recording(folder: Path, trajectories: Sequence[Trajectory]) -> None:
    """Write a recording as `folder`, complete or not at all, and remove the oldest ones beside it if all together have
    more than LARGEST bytes. Raise OSError if it cannot be written."""
    home = folder.parent
    home.mkdir(parents=True, exist_ok=True)
    new = Path(mkdtemp(dir=home, prefix=".new-"))
    try:
        drawings = tuple(write_golden(new, number, each) for number, each in enumerate(trajectories))
        names = sorted(path.relative_to(new).as_posix() for path in new.rglob("*") if path.is_file())
        kept = KeptRecording(drawings=drawings, files={name: digest_file(new / name) for name in names})
        (new / _INDEX).write_text(kept.model_dump_json(indent=1) + "\n", encoding="utf-8")
        if folder.exists():  # it has changed, or another process was faster
            folder.rename(new.with_name(f"{new.name}.old"))
        new.rename(folder)
    finally:
        for part in (new, new.with_name(f"{new.name}.old")):
            shutil.rmtree(part, ignore_errors=True)
    _remove_oldest(home)


def _remove_oldest(home: Path) -> None:
    folders = sorted((f for f in home.iterdir() if f.is_dir()), key=lambda f: f.stat().st_mtime, reverse=True)
    size = 0
    for number, folder in enumerate(folders):
        size += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        if number and size > LARGEST:
            shutil.rmtree(folder, ignore_errors=True)


def digest_file(path: Path) -> str:
    """Return the SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
