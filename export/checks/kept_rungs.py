"""Verdicts on the rungs below an artifact that stay on disk beside the recording of the original, so that an export of
the same artifact for another phone does not judge these rungs again.

The file of the verdicts is named by a digest of everything that decides them: the recording, the options, the bytes of
the artifact that ships, the product's own code and the versions of the libraries. The artifact itself is judged in
every export.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path

from pydantic import ValidationError

from pocketdiffusion import export, quantize, runtime
from pocketdiffusion.export.backends import find_backend
from pocketdiffusion.export.float16.audit import EmittedGraph
from pocketdiffusion.export.reference.kept_recordings import digest_file
from pocketdiffusion.runtime.bundle.verdicts import Verdict, VerdictRecord, read_verdict, record_verdict
from pocketdiffusion.runtime.record import AnyFloat, Record
from pocketdiffusion.runtime.verify.recording import Trajectory, cases


class KeptVerdict(VerdictRecord):
    """A verdict with the PSNR of its single cases (dB), which the report draws."""

    case_db: tuple[AnyFloat, ...]


class KeptVerdicts(Record):
    """The file of the verdicts on the rungs below one artifact."""

    verdicts: tuple[KeptVerdict, ...]


def rungs_file(
    recording: Path, fitted: EmittedGraph, folder: Path, few: Sequence[Trajectory], open_batch: bool
) -> Path:
    """Return the file, in the folder of the recording, of the verdicts on the rungs below the artifact in `folder`,
    judged by the calls in `few`. It may not exist."""
    graph = fitted.graph
    facts = {
        "recording": recording.name,
        "calls": [[case.label for case in cases(graph.spec.name, trajectory)] for trajectory in few],
        "artifact": repr(fitted.artifact),
        "plan": repr(fitted.plan),
        "weights": [tensor.derivation for part in (fitted.part, fitted.original) for tensor in part.weights.values()],
        "exponents": dict(fitted.part.exponents),
        "open_batch": open_batch,
        "files": {name: digest_file(folder / name) for name in graph.files},
        "code": _code_digest(),
        "tools": {name: version(name) for name in find_backend(fitted.artifact.format).tools},
    }
    name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return recording / "rungs" / f"{name}.json"


def read_rungs(file: Path) -> list[Verdict] | None:
    """Return the verdicts in `file`, None if there are none that can be read."""
    try:
        kept = KeptVerdicts.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        return None
    return [replace(read_verdict(record), case_db=record.case_db) for record in kept.verdicts]


def keep_rungs(file: Path, verdicts: Sequence[Verdict]) -> None:
    """Write the verdicts if all of them passed. Where the file cannot be written they are not kept, and a file that was
    cut short is refused by `read_rungs`: the export does not need it."""
    if all(verdict.passed for verdict in verdicts):
        records = (KeptVerdict(**dict(record_verdict(each)), case_db=each.case_db) for each in verdicts)
        with suppress(OSError):
            file.parent.mkdir(exist_ok=True)
            file.write_text(KeptVerdicts(verdicts=tuple(records)).model_dump_json(indent=1), encoding="utf-8")


@cache
def _code_digest() -> str:
    """Return the SHA-256 (hex) of the names and contents of the files that write and judge artifacts."""
    found = hashlib.sha256()
    for room in map(Path, (place for package in (export, quantize, runtime) for place in package.__path__)):
        for file in sorted(path for kind in ("*.py", "*.json", "*.toml") for path in room.rglob(kind)):
            found.update(f"{room.name}/{file.relative_to(room).as_posix()} {digest_file(file)}\n".encode())
    return found.hexdigest()
