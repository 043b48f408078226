"""The file table: the files of a bundle, their digests and sizes, and who needs them. Its digests are the
bundle's ids."""

import hashlib
from collections.abc import Collection, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from pocketdiffusion.runtime.record import INFORMS, Count, Record, Sha256

MANIFEST, DIGEST = "manifest.json", "manifest.sha256"  # the two files that are not in the table
PROOF, README = "proof.json", "README.md"
PIPELINES, STEPS = "pipeline", "steps"  # folders
Role = Literal["runtime", "companion", "proof", "report"]
OPTIONAL: tuple[Role, ...] = ("companion", "proof", "report")  # of each of these roles all files are there, or none


class FileEntry(Record):
    """One file of the bundle."""

    sha256: Sha256 = Field(description="digest of its bytes, in hexadecimal")
    size: Count = Field(description="its length in bytes")
    role: Annotated[Role, INFORMS] = Field(
        description="who needs it. runtime: whoever draws, and nothing else changes a picture; companion: other tools "
        "that open the folder; proof: whoever judges the bundle again; report: people. Of the last three all files of "
        "the role are there, or none"
    )


def role_of(path: str, named: Collection[str]) -> Role:
    """Return the role of the file `path`. `named` are the files that a pipeline file or the index names."""
    if path in named or path == README or path.startswith((f"{PIPELINES}/", f"{STEPS}/", "conformance/")):
        return "runtime"
    if path == PROOF or path.startswith("golden/"):
        return "proof"
    return "report" if path.startswith("report/") else "companion"


def runtime_id(files: Mapping[str, FileEntry]) -> str:
    """Return the digest of the files of role runtime, in hexadecimal. Equal ids draw equal pictures: it is a key for
    caches."""
    return _digest({path: entry for path, entry in files.items() if entry.role == "runtime"})


def bundle_id(files: Mapping[str, FileEntry]) -> str:
    """Return the digest, in hexadecimal, of all files without role report, which hold times: two exports of one model
    have the same id."""
    return _digest({path: entry for path, entry in files.items() if entry.role != "report"})


def _digest(files: Mapping[str, FileEntry]) -> str:
    """Return the sha256 of the lines "<sha256> <path>\\n", sorted by path, as sha256sum prints them."""
    lines = (f"{files[path].sha256}  {path}\n" for path in sorted(files))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def check_table(files: Mapping[str, FileEntry]) -> None:
    """Raise ValueError if two paths are the same on a disk that ignores case, if a path is both a file and a folder, or
    if the manifest lists itself."""
    spelled: dict[str, str] = {}
    for path in files:
        if path.lower() in (MANIFEST, DIGEST):
            raise ValueError(f"{path} cannot hold its own digest")
        folders = list(accumulate(path.split("/"), lambda a, b: f"{a}/{b}"))[:-1]
        for name in (*folders, path):
            other = spelled.setdefault(name.lower(), name)
            if other != name:
                raise ValueError(f"{other} and {name} differ only in case")
        for folder in folders:
            if folder in files:
                raise ValueError(f"{folder} is both a file and a folder")


def sha256_of(path: Path) -> str:
    """Return the digest of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_line(raw: bytes) -> bytes:
    """Return the content of manifest.sha256 for the bytes of manifest.json, as `sha256sum -c` reads it."""
    return f"{hashlib.sha256(raw).hexdigest()}  {MANIFEST}\n".encode()
