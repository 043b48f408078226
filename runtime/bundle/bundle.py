"""A bundle is a folder that its manifest describes to the last byte. It opens complete or not at all.

Complete means: every file of the role runtime, and of each other role all files or none. Files that file browsers,
phones, git, the hub and sync tools leave in it are ignored: leftovers.py has the list.

manifest.sha256 holds the digest of manifest.json (`sha256sum -c manifest.sha256`), which holds the digests of all
others."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pocketdiffusion.runtime.bundle.file_table import DIGEST, MANIFEST, PROOF, Role, digest_line, sha256_of
from pocketdiffusion.runtime.bundle.folder import blobs_of, find_files, leads_to
from pocketdiffusion.runtime.bundle.json_files import decode, one_line, parse
from pocketdiffusion.runtime.bundle.layout import (
    Index,
    Pipeline,
    Proof,
    first_unproven,
    join,
)
from pocketdiffusion.runtime.bundle.manifest import VERSION, Manifest
from pocketdiffusion.runtime.bundle.sizes import check_sizes
from pocketdiffusion.runtime.bundle.step_files import read_steps
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.program import Program
from pocketdiffusion.runtime.program_check import check_program

T = TypeVar("T")


@dataclass(frozen=True)
class Bundle:
    """An opened bundle, from `open_bundle` or `open_unproven`. `folder / path` is the file of any path in the
    manifest."""

    folder: Path
    manifest: Manifest


def open_bundle(folder: Path, *, check: bool = True) -> Bundle:
    """Open a complete bundle in which all verdicts passed, and in which every output of every graph has a verdict on
    the artifact itself: its rung is the recipe, at the precision that ships. If the proof part is not installed, the
    manifest's summary must say that it passed. Without `check`, file sizes are compared but not digests.

    Raise UserError if `folder` is not a bundle, or not one that this reader can run; ProofError, naming the file, if
    any is missing, changed or not in the manifest; ProofError, naming the graph, if a verdict is missing or failed."""
    bundle = open_unproven(folder, check=check)
    manifest = bundle.manifest
    if manifest.has_proof:
        if (reason := first_unproven(manifest)) is not None:
            raise ProofError(f"{folder}: {reason}")
    elif not manifest.proof.passed:
        worst = manifest.proof.worst
        named = "" if worst is None else f" (worst: {worst.subject})"
        raise ProofError(f"{folder} failed its proof according to its manifest{named}: export the model again")
    return bundle


def open_unproven(folder: Path, *, check: bool = True) -> Bundle:
    """Open a bundle like `open_bundle`, also if its proof failed: to inspect a failed export, not to draw with it.
    Raise UserError also if the bundle's program cannot be run with its graphs."""
    index = _read_index(folder)
    table, found = index.files, find_files(folder, index.files)
    missing, extra = sorted(table.keys() - found.keys()), sorted(found.keys() - table.keys())
    optional = {entry.role for entry in table.values()} - {"runtime"}  # unknown roles among them
    absent = optional - {table[path].role for path in table.keys() & found.keys()}
    missing = [path for path in missing if table[path].role not in absent]
    if missing or extra:
        parts = [f"{_names(missing)} missing"] if missing else []
        parts += [f"{_names(extra)} not in the manifest"] if extra else []
        raise ProofError(f"{folder} does not match its manifest: {'; '.join(parts)}; export or copy it again")
    installed = {path: entry for path, entry in sorted(table.items()) if path in found}
    for path, entry in installed.items():
        if found[path] != entry.size:
            raise ProofError(
                f"{folder / path} is corrupt: {found[path]} bytes, not {entry.size}; export or copy the bundle again"
            )
    for path, entry in installed.items() if check else ():
        if sha256_of(folder / path) != entry.sha256:
            raise _corrupt(folder / path)
    return Bundle(folder, read_manifest(folder, index, has_proof=PROOF in installed))


def read_manifest(folder: Path, index: Index, *, has_proof: bool) -> Manifest:
    """Read the JSON files that `index` names, and join them to one record. Raise ProofError if they are invalid or
    contradict each other, and UserError if the program cannot be run with the graphs."""
    pipelines = {
        format: _parse(folder, entry.pipeline, index, lambda raw: decode(raw, Pipeline), "pipeline file")
        for format, entry in index.formats.items()
    }
    steps = next(iter(pipelines.values())).steps
    tables = _parse(folder, steps.file, index, lambda raw: read_steps(raw, steps), "file of step tables")
    proof = None
    if has_proof:
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
    return manifest


def _check_program(folder: Path, program: Program, specs: Mapping[str, GraphSpec]) -> None:
    try:
        check_program(program, specs)
    except UserError as error:
        raise UserError(f"{folder} has {error}") from None


def require_proof(bundle: Bundle) -> None:
    """Raise UserError if the bundle has no proof part, which golden data and verdicts are read from."""
    if not bundle.manifest.has_proof:
        raise UserError(
            f"{bundle.folder}: proof part not installed: this needs the complete bundle, as export wrote it"
        )


def _read_index(folder: Path) -> Index:
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: name the folder that export wrote")
    blobs = blobs_of(folder)
    raw, digest = _read(folder / MANIFEST, blobs), _read(folder / DIGEST, blobs)
    if raw is None and digest is None:
        raise UserError(f"{folder} is not a bundle, it has no {MANIFEST}: name the folder that export wrote")
    for name, content in ((MANIFEST, raw), (DIGEST, digest)):
        if content is None:
            raise ProofError(f"{folder} is incomplete: {name} is missing; export or copy it again")
    assert raw is not None
    if digest != digest_line(raw):
        raise ProofError(
            f"{folder / MANIFEST} is corrupt, or {DIGEST} next to it: they do not match; export or copy it again"
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
            f"{folder} is a bundle of version {version}, and this pocketdiffusion reads version {VERSION}: {way_out}"
        )


def _parse(folder: Path, path: str, index: Index, read: Callable[[bytes], T], what: str, role: Role = "runtime") -> T:
    """Compare the bytes of a file with their digest, and return the result of `read` on them.

    Raise UserError, which names the file, if a closed list has a value that this reader does not know, and ProofError
    if the file is corrupt, of another role, or invalid."""
    entry = index.files.get(path)
    if entry is None or entry.role != role:
        said = "not in the file table" if entry is None else f"of the role {entry.role}, not {role}"
        raise ProofError(f"{folder / path}, the {what}, is {said}; export the bundle again")
    raw = (folder / path).read_bytes()
    if hashlib.sha256(raw).hexdigest() != entry.sha256:
        raise _corrupt(folder / path)
    try:
        return read(raw)
    except UserError as error:
        raise UserError(f"{folder / path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ProofError(
            f"{folder / path} is not a valid {what}: {one_line(error)}; export the bundle again"
        ) from error


def _corrupt(path: Path) -> ProofError:
    return ProofError(f"{path} is corrupt: its sha256 is not the manifest's; export or copy the bundle again")


def _read(path: Path, blobs: Path | None) -> bytes | None:
    if path.is_symlink() and not leads_to(path, blobs):
        raise ProofError(f"{path} is a link: a bundle has only files and folders")
    return path.read_bytes() if path.is_file() else None


def _names(paths: Iterable[str]) -> str:
    first, *rest = map(repr, paths)
    return ", ".join([first, *rest[:2]]) + (f" and {len(rest) - 2} more" if len(rest) > 2 else "")
