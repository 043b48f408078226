"""The files below a bundle's folder, without the files that other programs leave in it."""

import os
from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath
from stat import S_ISDIR, S_ISLNK, S_ISREG

from pocketdiffusion.runtime.bundle.file_table import DIGEST, MANIFEST
from pocketdiffusion.runtime.bundle.leftovers import is_left_over, is_worthless
from pocketdiffusion.runtime.errors import ProofError


def list_files(folder: Path) -> dict[str, int]:
    """Return {path: size in bytes} of every file below `folder`, except the manifest, its digest, and files of file
    browsers (`leftovers.DISPOSABLE`). Raise ProofError for links, devices, pipes and empty folders."""
    return _walk(folder, lambda path, is_folder: not is_folder and is_worthless(_last(path)), None)


def find_files(folder: Path, named: Collection[str]) -> dict[str, int]:
    """Return the same as `list_files` for a folder that others may have used: files that programs leave behind
    (`leftovers.py`) are ignored unless they are `named`, and a file may be a link into the hub's own store, as in its
    cache."""
    folders = {str(parent) for path in named for parent in PurePosixPath(path).parents}

    def ignored(path: str, is_folder: bool) -> bool:
        return path not in (folders if is_folder else named) and is_left_over(_last(path), folder=is_folder)

    return _walk(folder, ignored, blobs_of(folder))


def _walk(folder: Path, ignored: Callable[[str, bool], bool], blobs: Path | None) -> dict[str, int]:
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
                if ignored(path, True):
                    continue
                pending.append(path + "/")
            elif not S_ISREG(status.st_mode):
                if blobs is not None and not (folder / path).exists():
                    raise ProofError(f"{folder} is incomplete: {path!r} is not in the hub's cache: download it again")
                raise ProofError(
                    f"{folder}: {path!r} is a link or not an ordinary file: a bundle has only files and folders"
                )
            elif ignored(path, False):
                continue
            elif path not in (MANIFEST, DIGEST):
                files[path] = status.st_size
            empty = False
        if empty and inside:
            raise ProofError(f"{folder}: the folder {inside!r} is empty, and not in the manifest: remove it")
    return files


def blobs_of(folder: Path) -> Path | None:
    """Return the folder of the files of a snapshot in the hub's cache: models--USER--NAME/snapshots/REVISION has links
    to files in models--USER--NAME/blobs. None if `folder` is not below such a snapshot."""
    for parent in folder.resolve().parents:
        if parent.name == "snapshots":
            return (parent.parent / "blobs").resolve()
    return None


def leads_to(link: Path, blobs: Path | None) -> bool:
    """Return True if `link` leads to a file directly in the folder `blobs`."""
    target = link.resolve()
    return blobs is not None and target.parent == blobs and target.is_file()


def _last(path: str) -> str:
    return path.rpartition("/")[2]
