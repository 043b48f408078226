"""A bundle is a folder that its manifest describes to the last byte. It opens whole or not at all.

Whole means: every file of the role runtime, and of each other role all files or none. What file browsers, phones, git,
the hub and sync tools leave in it is passed over: leftovers.py has the list.

manifest.sha256 holds the digest of manifest.json (`sha256sum -c manifest.sha256`), which holds those of all others.
"""

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pocketdiffusion.runtime.bundle.file_table import (
    DIGEST,
    MANIFEST,
    PIPELINES,
    PROOF,
    FileEntry,
    Role,
    role_of,
)
from pocketdiffusion.runtime.bundle.json_files import decode, encode, one_line, parse
from pocketdiffusion.runtime.bundle.layout import (
    Index,
    Pipeline,
    Proof,
    first_unproven,
    join,
    make_index,
    make_pipelines,
    make_proof,
    pipeline_path,
)
from pocketdiffusion.runtime.bundle.leftovers import is_left_over, is_worthless
from pocketdiffusion.runtime.bundle.manifest import VERSION, Draft, Manifest, runtime_paths
from pocketdiffusion.runtime.bundle.record import ArrayRef
from pocketdiffusion.runtime.bundle.sizes import check_sizes
from pocketdiffusion.runtime.bundle.step_files import read_steps, write_steps
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.program import Program
from pocketdiffusion.runtime.program_check import check_program

T = TypeVar("T")


@dataclass(frozen=True)
class Bundle:
    """Made by `open_bundle` or `open_unproven`. `folder / path` is where any path of the manifest lies."""

    folder: Path
    manifest: Manifest


def open_bundle(folder: Path, *, check: bool = True) -> Bundle:
    """A whole bundle in which all verdicts passed, and every output of every graph has one on the artifact itself: of
    the rung that is called after its recipe, at the precision that ships. Where the proof part is not installed, the
    manifest's summary of it has to say so. Without `check`, file sizes are compared but not digests.

    Raises UserError where `folder` is no bundle, or one that this reader cannot run; ProofError, naming the file, where
    any is missing, changed or not in the manifest; ProofError, naming the graph, where a verdict is missing or bad.
    """
    bundle = open_unproven(folder, check=check)
    manifest = bundle.manifest
    if manifest.has_proof:
        if (reason := first_unproven(manifest)) is not None:
            raise ProofError(f"{folder}: {reason}")
    elif not manifest.proof.passed:
        worst = manifest.proof.worst
        named = "" if worst is None else f", {worst.subject} above all"
        raise ProofError(f"{folder}: it failed its proof, as its manifest says{named}: export again")
    return bundle


def open_unproven(folder: Path, *, check: bool = True) -> Bundle:
    """As `open_bundle`, but whatever the verdicts say: to look into a failed export, not to draw with it. Raises
    UserError besides where the bundle's program cannot be run with its graphs."""
    index = _read_index(folder)
    table, found = index.files, find_files(folder, index.files)
    missing, extra = sorted(table.keys() - found.keys()), sorted(found.keys() - table.keys())
    optional = {entry.role for entry in table.values()} - {"runtime"}  # those that are not known among them
    absent = optional - {table[path].role for path in table.keys() & found.keys()}
    missing = [path for path in missing if table[path].role not in absent]
    if missing or extra:
        parts = [f"{_names(missing)} missing"] if missing else []
        parts += [f"{_names(extra)} not in the manifest"] if extra else []
        raise ProofError(f"{folder} is not whole: {'; '.join(parts)}; export or copy it again")
    installed = {path: entry for path, entry in sorted(table.items()) if path in found}
    for path, entry in installed.items():
        if found[path] != entry.size:
            raise ProofError(
                f"{folder / path} is damaged: {found[path]} bytes, not {entry.size}; export or copy the bundle again"
            )
    for path, entry in installed.items() if check else ():
        if _sha256(folder / path) != entry.sha256:
            raise _damaged(folder / path)
    pipelines = {
        format: _parse(folder, entry.pipeline, index, lambda raw: decode(raw, Pipeline), "pipeline file")
        for format, entry in index.formats.items()
    }
    steps = next(iter(pipelines.values())).steps
    tables = _parse(folder, steps.file, index, lambda raw: read_steps(raw, steps), "file of step tables")
    proof = None
    if PROOF in installed:
        proof = _parse(folder, PROOF, index, lambda raw: decode(raw, Proof), "proof file", "proof")
    try:
        manifest = join(index, pipelines, tables, proof)
    except ValueError as error:
        raise ProofError(f"{folder} contradicts itself: {one_line(error)}; export it again") from error
    for graphs in manifest.graphs.values():
        specs = {name: graph.spec for name, graph in graphs.items()}
        _check_program(folder, manifest.program, specs)
        try:
            check_sizes(manifest, specs)
        except ValueError as error:
            raise ProofError(f"{folder} contradicts itself: {error}; export it again") from error
    return Bundle(folder, manifest)


def _check_program(folder: Path, program: Program, specs: Mapping[str, GraphSpec]) -> None:
    try:
        check_program(program, specs)
    except UserError as error:
        raise UserError(f"{folder} has {error}") from None


def require_proof(bundle: Bundle) -> None:
    """Raises UserError where the bundle has no proof part, for whoever is about to read golden data or verdicts."""
    if not bundle.manifest.has_proof:
        raise UserError(f"{bundle.folder}: proof part not installed: this needs the whole bundle, as export wrote it")


def seal(folder: Path, draft: Draft) -> Manifest:
    """Write the JSON files of `draft` below `folder`, count all files, write manifest.json and manifest.sha256. The
    same content gives the same bytes.

    A Manifest may be given as the draft: its table is made anew. Raises ProofError for links and other odd files, and
    ValueError where the draft names a file that is not there, or a file's name is not fit for every disk.
    """
    draft = Draft(**{name: getattr(draft, name) for name in Draft.model_fields})
    steps = write_steps(folder, draft.step_tables, draft.scheduler)
    written = {pipeline_path(name): encode(pipeline) for name, pipeline in make_pipelines(draft, steps).items()}
    (folder / PIPELINES).mkdir(exist_ok=True)
    for path, raw in (written | {PROOF: encode(make_proof(draft))}).items():
        (folder / path).write_bytes(raw)
    for stale in (folder / PIPELINES).glob("*.json"):
        if f"{PIPELINES}/{stale.name}" not in written:
            stale.unlink()
    named = {path for _, path in runtime_paths(draft)} | {steps.file}
    files = {
        path: FileEntry(sha256=_sha256(folder / path), size=size, role=role_of(path, named))
        for path, size in list_files(folder).items()
    }
    index = make_index(draft, files)
    manifest = Manifest(
        **{name: getattr(draft, name) for name in Draft.model_fields},
        proof=index.proof,
        picture=index.picture,
        runtime_id=index.runtime_id,
        bundle_id=index.bundle_id,
        files=files,
    )
    raw = encode(index)
    (folder / MANIFEST).write_bytes(raw)
    (folder / DIGEST).write_bytes(_digest_line(raw))
    return manifest


def list_files(folder: Path) -> dict[str, int]:
    """Every file below `folder`, by its path, with its size in bytes: save the manifest, its digest, and what file
    browsers leave behind (`leftovers.WORTHLESS`). Raises ProofError for links, devices, pipes, empty folders."""
    return _walk(folder, lambda path, is_folder: not is_folder and is_worthless(_last(path)), None)


def find_files(folder: Path, named: Collection[str]) -> dict[str, int]:
    """As `list_files`, of a folder that others may have used: what programs leave behind (`leftovers.py`) is passed
    over, unless it is `named`; and a file may be a link into the hub's own store, as in its cache."""
    folders = {str(parent) for path in named for parent in PurePosixPath(path).parents}

    def passed_over(path: str, is_folder: bool) -> bool:
        return path not in (folders if is_folder else named) and is_left_over(_last(path), folder=is_folder)

    return _walk(folder, passed_over, _blobs(folder))


def _walk(folder: Path, passed_over: Callable[[str, bool], bool], blobs: Path | None) -> dict[str, int]:
    files: dict[str, int] = {}
    pending = [""]
    while pending:
        inside = pending.pop()
        empty = True
        for entry in os.scandir(folder / inside):
            path = inside + entry.name
            status = entry.stat(follow_symlinks=False)
            if S_ISLNK(status.st_mode) and _leads_to(folder / path, blobs):
                status = entry.stat()
            if S_ISDIR(status.st_mode):
                if passed_over(path, True):
                    continue
                pending.append(path + "/")
            elif not S_ISREG(status.st_mode):
                if blobs is not None and not (folder / path).exists():
                    raise ProofError(f"{folder} is not whole: {path!r} is not in the hub's cache: download it again")
                raise ProofError(
                    f"{folder}: {path!r} is a link or no ordinary file: a bundle holds files and folders only"
                )
            elif passed_over(path, False):
                continue
            elif path not in (MANIFEST, DIGEST):
                files[path] = status.st_size
            empty = False
        if empty and inside:
            raise ProofError(f"{folder}: the folder {inside!r} is empty, and not in the manifest: remove it")
    return files


def _blobs(folder: Path) -> Path | None:
    """Where the files of a snapshot in the hub's cache lie: models--USER--NAME/snapshots/REVISION has links to files in
    models--USER--NAME/blobs. None where `folder` is not below such a snapshot."""
    for parent in folder.resolve().parents:
        if parent.name == "snapshots":
            return (parent.parent / "blobs").resolve()
    return None


def _leads_to(link: Path, blobs: Path | None) -> bool:
    """Whether `link` leads to a file that lies in the folder `blobs` itself."""
    target = link.resolve()
    return blobs is not None and target.parent == blobs and target.is_file()


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def write_array(folder: Path, path: str, array: NDArray[Any]) -> ArrayRef:
    """Writes `array` to `folder / path`: little-endian, C order. Raises ValueError for dtypes that ArrayRef has not."""
    ref = ArrayRef.model_validate({"path": path, "dtype": array.dtype.name, "shape": array.shape})
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return ref


def read_array(folder: Path, ref: ArrayRef) -> NDArray[Any]:
    """The array that `write_array` wrote. Raises ProofError where the file has not the size of the shape."""
    raw = (folder / ref.path).read_bytes()
    if len(raw) != ref.nbytes:
        raise ProofError(
            f"{folder / ref.path} is damaged: {len(raw)} bytes, where {ref.dtype}{list(ref.shape)} has {ref.nbytes}"
        )
    dtype = np.dtype(ref.dtype)
    return np.frombuffer(raw, dtype.newbyteorder("<")).reshape(ref.shape).astype(dtype)


def _read_index(folder: Path) -> Index:
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: name the folder that export wrote")
    blobs = _blobs(folder)
    raw, digest = _read(folder / MANIFEST, blobs), _read(folder / DIGEST, blobs)
    if raw is None and digest is None:
        raise UserError(f"{folder} is not a bundle, it has no {MANIFEST}: name the folder that export wrote")
    for name, content in ((MANIFEST, raw), (DIGEST, digest)):
        if content is None:
            raise ProofError(f"{folder} is not whole: {name} missing; export or copy it again")
    assert raw is not None
    if digest != _digest_line(raw):
        raise ProofError(
            f"{folder / MANIFEST} is damaged, or {DIGEST} beside it: they do not match; export or copy it again"
        )
    try:
        _check_version(folder, parse(raw).get("version"))
        try:
            return decode(raw, Index)
        except UserError as error:
            raise UserError(f"{folder / MANIFEST}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ProofError(f"{folder / MANIFEST} is not a manifest: {one_line(error)}") from error


def _check_version(folder: Path, version: object) -> None:
    if type(version) is not int:
        raise ValueError("it states no version")
    if version != VERSION:
        way_out = "install a newer pocketdiffusion" if version > VERSION else "export the model again"
        raise UserError(
            f"{folder} is a bundle of version {version}, where this pocketdiffusion reads version {VERSION}: {way_out}"
        )


def _parse(folder: Path, path: str, index: Index, read: Callable[[bytes], T], what: str, role: Role = "runtime") -> T:
    """What `read` makes of a file's bytes, which are compared with their digest, as they are about to be believed.

    Raises UserError, which names the file, where this reader does not know what stands in a closed list, and ProofError
    where it is damaged, of another role, or not what it should be."""
    entry = index.files.get(path)
    if entry is None or entry.role != role:
        said = "not in the file table" if entry is None else f"of the role {entry.role}, not {role}"
        raise ProofError(f"{folder / path}, the {what}, is {said}; export the bundle again")
    raw = (folder / path).read_bytes()
    if hashlib.sha256(raw).hexdigest() != entry.sha256:
        raise _damaged(folder / path)
    try:
        return read(raw)
    except UserError as error:
        raise UserError(f"{folder / path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ProofError(f"{folder / path} is no {what}: {one_line(error)}; export the bundle again") from error


def _damaged(path: Path) -> ProofError:
    return ProofError(f"{path} is damaged: its sha256 is not the manifest's; export or copy the bundle again")


def _read(path: Path, blobs: Path | None) -> bytes | None:
    if path.is_symlink() and not _leads_to(path, blobs):
        raise ProofError(f"{path} is a link: a bundle holds files and folders only")
    return path.read_bytes() if path.is_file() else None


def _digest_line(raw: bytes) -> bytes:
    return f"{hashlib.sha256(raw).hexdigest()}  {MANIFEST}\n".encode()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _names(paths: Iterable[str]) -> str:
    first, *rest = map(repr, paths)
    return ", ".join([first, *rest[:2]]) + (f" and {len(rest) - 2} more" if len(rest) > 2 else "")
