"""Folders that a download from the Hugging Face hub made, and what to do about one that it did not finish.

CACHE/models--USER--NAME/snapshots/COMMIT/...   links to CACHE/models--USER--NAME/blobs/...
DIR/.cache/huggingface/download/...             beside the files of `hf download USER/NAME --local-dir DIR`
"""

import os
from pathlib import Path

from pocketdiffusion.export.checkpoints.text_files import NotWholeError
from pocketdiffusion.runtime.errors import UserError

_PREFIX, _LOCAL = "models--", Path(".cache/huggingface")


def describe_unfinished(folder: Path, error: NotWholeError) -> UserError:
    """Return `error`, of a checkpoint in `folder` that lacks a file, with the way to get the rest where the folder came
    from the hub; otherwise `error` itself."""
    if (repo := _find_repo(folder)) is not None:
        revision = folder.resolve().name
        return UserError(
            f"{folder} is a snapshot of {repo} in the hub's cache, and only a part of it: its download was interrupted "
            f"({error}); download the rest: hf download {repo} --revision {revision}, or give {repo} in place of the "
            "folder and run again online"
        )
    if (folder / _LOCAL).is_dir():
        return UserError(
            f"{folder} was downloaded from the hub, and only a part of it is there: the download was interrupted "
            f"({error}); run the same `hf download ... --local-dir {folder}` again, which downloads the rest"
        )
    return error


def _find_repo(folder: Path) -> str | None:
    """Return USER/NAME where `folder` is a snapshot in a hub's cache, by its path or the one that it links to."""
    for path in (Path(os.path.abspath(folder)), folder.resolve()):
        home = path.parent.parent.name
        if path.parent.name == "snapshots" and home.startswith(_PREFIX):
            return home.removeprefix(_PREFIX).replace("--", "/")
    return None
