"""A bundle is a folder that its manifest describes to the last byte. It opens whole or not at all.

What file browsers, phones, git, the hub and sync tools leave in it is passed over: leftovers.py has the list.

manifest.sha256 holds the digest of manifest.json (`sha256sum -c manifest.sha256`), which holds those of all others.
"""

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from pocketdiffusion.runtime.bundle.file_table import DIGEST, MANIFEST, FileEntry, bundle_id
from pocketdiffusion.runtime.bundle.leftovers import is_left_over, is_worthless
from pocketdiffusion.runtime.bundle.manifest import Draft, Manifest, decode, encode
from pocketdiffusion.runtime.bundle.record import ArrayRef
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.program import Program
from pocketdiffusion.runtime.program_check import check_program


@dataclass(frozen=True)
class Bundle:
    """Made by `open_bundle` or `open_unproven`. `folder / path` is where any path of the manifest lies."""

    folder: Path
    manifest: Manifest


def open_bundle(folder: Path, *, check: bool = True) -> Bundle:
    """A whole bundle in which all verdicts passed, and every output of every graph has one on the artifact itself: of
    the rung that is called after its recipe, at the precision that ships. Without `check`, file sizes are compared but
    not digests.

    Raises UserError where `folder` is no bundle, or one of another version; ProofError, naming the file, where any
    is missing, changed or not in the manifest; ProofError, naming the graph, where a verdict is missing or bad.
    """
    bundle = open_unproven(folder, check=check)
    verdicts = bundle.manifest.verdicts
    for verdict in sorted(verdicts, key=lambda verdict: verdict.rung == "pictures"):  # which suffer of any part
        if not verdict.passed:
            raise ProofError(
                f"{folder}: {verdict.subject} failed its proof ({verdict.rung}, {verdict.psnr_db:.1f} dB where "
                f"{verdict.floor_db:.1f} dB is the floor): see inspect, then export again"
            )
    for format, graphs in bundle.manifest.graphs.items():
        for name, graph in graphs.items():
            shipped = (graph.recipe, format, graph.storage, graph.arithmetic)
            judged = {v.subject for v in verdicts if (v.rung, v.format, v.storage, v.arithmetic) == shipped}
            for output in graph.spec.outputs:
                if not judged & {name, f"{name}.{output.name}"}:
                    raise ProofError(
                        f"{folder}: no verdict on {output.name} of the {format} graph {name}: export again"
                    )
    return bundle


def open_unproven(folder: Path, *, check: bool = True) -> Bundle:
    """As `open_bundle`, but whatever the verdicts say: to look into a failed export, not to draw with it. Raises
    UserError besides where the bundle's program cannot be run with its graphs."""
    manifest = _read_manifest(folder)
    for graphs in manifest.graphs.values():
        _check_program(folder, manifest.program, {name: graph.spec for name, graph in graphs.items()})
    table, found = manifest.files, find_files(folder, manifest.files)
    missing, extra = sorted(table.keys() - found.keys()), sorted(found.keys() - table.keys())
    if missing or extra:
        parts = [f"{_names(missing)} missing"] if missing else []
        parts += [f"{_names(extra)} not in the manifest"] if extra else []
        raise ProofError(f"{folder} is not whole: {'; '.join(parts)}; export or copy it again")
    for path, entry in sorted(table.items()):
        if found[path] != entry.size:
            raise ProofError(
                f"{folder / path} is damaged: {found[path]} bytes, not {entry.size}; export or copy the bundle again"
            )
    for path, entry in sorted(table.items()) if check else ():
        if _sha256(folder / path) != entry.sha256:
            raise ProofError(
                f"{folder / path} is damaged: its sha256 is not the manifest's; export or copy the bundle again"
            )
    return Bundle(folder, manifest)


def _check_program(folder: Path, program: Program, specs: Mapping[str, GraphSpec]) -> None:
    try:
        check_program(program, specs)
    except UserError as error:
        raise UserError(f"{folder} has {error}") from None


def seal(folder: Path, draft: Draft) -> Manifest:
    """Counts the files below `folder`, writes manifest.json and manifest.sha256. The same content gives the same bytes.

    A Manifest may be given as the draft: its table is made anew. Raises ProofError for links and other odd files, and
    ValueError where the draft names a file that is not there, or a file's name is not fit for every disk.
    """
    files = {path: FileEntry(sha256=_sha256(folder / path), size=size) for path, size in list_files(folder).items()}
    decided = {name: getattr(draft, name) for name in Draft.model_fields}
    manifest = Manifest(**decided, files=files, bundle_id=bundle_id(files))
    raw = encode(manifest)
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


def _read_manifest(folder: Path) -> Manifest:
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
        return decode(raw)
    except UserError as error:
        raise UserError(f"{folder} is {error}") from error
    except (ValueError, RecursionError) as error:
        raise ProofError(f"{folder / MANIFEST} is not a manifest: {_one_line(error)}") from error


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


def _one_line(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return " ".join(str(error).split())
    first, *rest = error.errors(include_url=False)
    where = ".".join(map(str, first["loc"]))
    more = f" (and {len(rest)} more)" if rest else ""
    return f"{where}: {first['msg']}{more}" if where else f"{first['msg']}{more}"
