"""Sealing: writing the JSON files of a bundle, the digest of every file, the manifest and the manifest's digest.

Each file is hashed once. An export prepares the folder, lets the gate judge it, and seals it with the verdicts. The
file system's inode, size and times tell then whether each file is still the hashed one, so that a file that changed in
between is found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import time_ns

from pocketdiffusion.runtime.bundle.bundle import Bundle, read_manifest
from pocketdiffusion.runtime.bundle.file_table import (
    DIGEST,
    MANIFEST,
    PIPELINES,
    PROOF,
    FileEntry,
    digest_line,
    role_of,
    sha256_of,
)
from pocketdiffusion.runtime.bundle.folder import list_files
from pocketdiffusion.runtime.bundle.json_files import encode
from pocketdiffusion.runtime.bundle.layout import make_index, make_pipelines, make_proof, pipeline_path
from pocketdiffusion.runtime.bundle.manifest import Manifest, UnsealedManifest, runtime_paths
from pocketdiffusion.runtime.bundle.step_files import Steps, write_steps
from pocketdiffusion.runtime.bundle.verdicts import Verdict
from pocketdiffusion.runtime.errors import ProofError

_SETTLED_NS = 2_000_000_000  # coarsest clock of a file system: times may not show a second change so soon


@dataclass(frozen=True)
class Hashed:
    """A file's digest and length in bytes. `stamp` has its inode, length, and the times of its last changes in
    nanoseconds, by which a later change is found; None if the file was too young for its times to show one."""

    sha256: str
    size: int
    stamp: tuple[int, ...] | None


@dataclass(frozen=True)
class Unsealed:
    """A folder that is complete except for the verdicts. `steps` is the index of its step tables."""

    bundle: Bundle
    steps: Steps
    hashed: Mapping[str, Hashed]


def prepare(folder: Path, draft: UnsealedManifest) -> Unsealed:
    """Write the JSON files of `draft` below `folder`, except for the manifest and its digest, hash every file, and read
    the written files back: the gate judges `bundle` of the result.

    Raise ProofError for links and other files that are not ordinary, and ValueError if the draft names a missing file,
    or a file's name is not valid on every disk."""
    draft = UnsealedManifest(**{name: getattr(draft, name) for name in UnsealedManifest.model_fields})
    steps = _write_json(folder, draft)
    hashed = hash_files(folder, {})
    index = make_index(draft, _table(draft, steps, hashed))
    return Unsealed(Bundle(folder, read_manifest(folder, index, has_proof=True)), steps, hashed)


def seal_judged(unsealed: Unsealed, verdicts: Sequence[Verdict]) -> Manifest:
    """Write proof.json with `verdicts`, the manifest and its digest. Raise ProofError, which names the file, if a file
    without role report has changed since `prepare`."""
    folder, before = unsealed.bundle.folder, unsealed.bundle.manifest
    draft = UnsealedManifest(
        **{name: getattr(before, name) for name in UnsealedManifest.model_fields} | {"verdicts": tuple(verdicts)}
    )
    (folder / PROOF).write_bytes(encode(make_proof(draft)))
    files = _table(draft, unsealed.steps, hash_files(folder, unsealed.hashed))
    if changed := changed_files(before.files, files):
        raise ProofError(f"{folder / changed[0]} changed between the proof and the seal: export again")
    return _write_manifest(folder, draft, files)


def seal(folder: Path, draft: UnsealedManifest) -> Manifest:
    """Write the JSON files of `draft` below `folder`, the file table in manifest.json, and manifest.sha256. The same
    content gives the same bytes. A Manifest may be given as the draft: its table is computed again. Raise as `prepare`
    does."""
    draft = UnsealedManifest(**{name: getattr(draft, name) for name in UnsealedManifest.model_fields})
    steps = _write_json(folder, draft)
    return _write_manifest(folder, draft, _table(draft, steps, hash_files(folder, {})))


def hash_files(folder: Path, known: Mapping[str, Hashed]) -> dict[str, Hashed]:
    """Return the digest of every file below `folder`, by its path. Files in `known` that have not changed are not read
    again."""
    found = {}
    for path, size in list_files(folder).items():
        begun, stamp = time_ns(), _stamp(folder / path)
        before = known.get(path)
        if before is not None and before.stamp == stamp:
            found[path] = before
        else:
            settled = begun - max(stamp[2:]) > _SETTLED_NS
            found[path] = Hashed(sha256_of(folder / path), size, stamp if settled else None)
    return found


def changed_files(judged: Mapping[str, FileEntry], sealed: Mapping[str, FileEntry]) -> list[str]:
    """Return the files that changed since the bundle was judged, except proof.json and role report. All files of role
    runtime are compared, so that an empty list means equal runtime ids."""
    entries = {path: (judged.get(path), sealed.get(path)) for path in sorted(judged.keys() | sealed.keys())}
    return [
        path
        for path, (before, after) in entries.items()
        if path != PROOF and before != after and "report" not in {entry.role for entry in (before, after) if entry}
    ]


def _write_json(folder: Path, draft: UnsealedManifest) -> Steps:
    steps = write_steps(folder, draft.step_tables, draft.scheduler)
    written = {pipeline_path(name): encode(pipeline) for name, pipeline in make_pipelines(draft, steps).items()}
    (folder / PIPELINES).mkdir(exist_ok=True)
    for path, raw in (written | {PROOF: encode(make_proof(draft))}).items():
        (folder / path).write_bytes(raw)
    for stale in (folder / PIPELINES).glob("*.json"):
        if f"{PIPELINES}/{stale.name}" not in written:
            stale.unlink()
    return steps


def _stamp(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _table(draft: UnsealedManifest, steps: Steps, hashed: Mapping[str, Hashed]) -> dict[str, FileEntry]:
    named = {path for _, path in runtime_paths(draft)} | {steps.file}
    return {
        path: FileEntry(sha256=each.sha256, size=each.size, role=role_of(path, named)) for path, each in hashed.items()
    }


def _write_manifest(folder: Path, draft: UnsealedManifest, files: Mapping[str, FileEntry]) -> Manifest:
    index = make_index(draft, files)
    manifest = Manifest(
        **{name: getattr(draft, name) for name in UnsealedManifest.model_fields},
        proof=index.proof,
        picture=index.picture,
        runtime_id=index.runtime_id,
        bundle_id=index.bundle_id,
        files=index.files,
    )
    raw = encode(index)
    (folder / MANIFEST).write_bytes(raw)
    (folder / DIGEST).write_bytes(digest_line(raw))
    return manifest
