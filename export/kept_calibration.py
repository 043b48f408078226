"""The statistics of the original's activations that stay on disk beside its recordings, so that an export for another
phone, format or recipe with integer activations does not draw the calibration prompts again.

The file is named by a digest of everything that decides the statistics. It is a zip of arrays, whose members have
checksums: a damaged file is not used.
"""

import hashlib
import json
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from pydantic import ValidationError

from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.quantization import Calibrated, calibrate, observe_nothing
from pocketdiffusion.export.reference.recording_facts import recording_facts
from pocketdiffusion.export.reference.requests import Request
from pocketdiffusion.quantize.measure.activation_stats import fill, pack
from pocketdiffusion.quantize.observers import METHOD
from pocketdiffusion.runtime.bundle.manifest import Calibration
from pocketdiffusion.runtime.progress import Progress

CALIBRATION_VERSION = 1
"""The version of the statistics, a part of every key. Increment it with each change of code that changes the counts of
the same model, requests and libraries, or the form in which they are stored."""
_FILE = "calibration.npz"
_RECORD = "calibration"  # the array with the JSON of the record


def calibrate_once(
    checkpoint: Checkpoint,
    parts: Sequence[Component],
    requests: Sequence[Request],
    home: Path | None,
    progress: Progress = lambda line: None,
) -> Calibrated:
    """Return what `calibrate` returns. In the folder `home` it is kept, and found again; None keeps nothing. Raise
    ProofError as `calibrate` does."""
    if home is None:
        return calibrate(checkpoint, parts, requests, progress)
    facts = {"version": CALIBRATION_VERSION, "method": METHOD, "facts": recording_facts(checkpoint, parts, requests)}
    name = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
    file = home / name / _FILE
    found = _read(file, parts)
    if found is None:
        found = calibrate(checkpoint, parts, requests, progress)
        with suppress(OSError):  # the export needs the statistics, not their copy
            _write(file, found)
    return found


def _read(file: Path, parts: Sequence[Component]) -> Calibrated | None:
    """Return the statistics in `file`, None if there are none that can be read."""
    statistics = observe_nothing(parts)
    try:
        with np.load(file) as arrays:
            calibration = Calibration.model_validate_json(str(arrays[_RECORD]))
            fill(statistics, arrays)
    except (OSError, BadZipFile, zlib.error, EOFError, KeyError, ValueError, ValidationError):
        return None
    return Calibrated(statistics, calibration)


def _write(file: Path, found: Calibrated) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}")
    record = np.array(found.calibration.model_dump_json())
    arrays: dict[str, Any] = {_RECORD: record, **pack(found.statistics)}
    with part.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
    part.replace(file)
