"""Which files lie below a bundle's folder, whoever else left something in it."""

import os
from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath
from stat import S_ISDIR, S_ISLNK, S_ISREG

from pocketdiffusion.runtime.bundle.file_table import DIGEST, MANIFEST
from pocketdiffusion.runtime.bundle.leftovers import is_left_over, is_worthless
from pocketdiffusion.runtime.errors import ProofError


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

    return _walk(folder, passed_over, blobs_of(folder))


def _walk(folder: Path, passed_over: Callable[[str, bool], bool], blobs: Path | None) -> dict[str, int]:
    files: dict[str, int] = {}
    pending = [""]
    while pending:
        inside = pending.pop()
        empty = True
        for entry in os.scandir(folder / inside):
            path = inside + entry.name
            status = entry.stat(follow_symlinks=False)
            if S_ISLNK(status.st_mode) and leads_to(folder / path, blobs):
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


def blobs_of(folder: Path) -> Path | None:
    """Where the files of a snapshot in the hub's cache lie: models--USER--NAME/snapshots/REVISION has links to files in
    models--USER--NAME/blobs. None where `folder` is not below such a snapshot."""
    for parent in folder.resolve().parents:
        if parent.name == "snapshots":
            return (parent.parent / "blobs").resolve()
    return None


def leads_to(link: Path, blobs: Path | None) -> bool:
    """Whether `link` leads to a file that lies in the folder `blobs` itself."""
    target = link.resolve()
    return blobs is not None and target.parent == blobs and target.is_file()


def _last(path: str) -> str:
    return path.rpartition("/")[2]
