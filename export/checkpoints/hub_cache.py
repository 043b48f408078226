"""Recognise folders that a download from the Hugging Face hub made, and advise how to finish an interrupted one.

CACHE/models--USER--NAME/snapshots/COMMIT/...   links to CACHE/models--USER--NAME/blobs/...
DIR/.cache/huggingface/download/...             next to the files of `hf download USER/NAME --local-dir DIR`
"""

import os
from pathlib import Path

from pocketdiffusion.export.checkpoints.text_files import IncompleteError
from pocketdiffusion.runtime.errors import UserError

_PREFIX, _LOCAL = "models--", Path(".cache/huggingface")


def describe_unfinished(folder: Path, error: IncompleteError) -> UserError:
    """Return `error`, about a missing file of the checkpoint in `folder`, with the command that downloads the rest if
    the folder came from the hub; otherwise `error` itself."""
    if (repo := _find_repo(folder)) is not None:
        revision = folder.resolve().name
        return UserError(
            f"{folder} is an incomplete snapshot of {repo} in the hub's cache: its download was interrupted ({error}); "
            f"download the rest: hf download {repo} --revision {revision}, or give {repo} instead of the folder and "
            "run the command again online"
        )
    if (folder / _LOCAL).is_dir():
        return UserError(
            f"{folder} was downloaded from the hub and is incomplete: the download was interrupted "
            f"({error}); run the same `hf download ... --local-dir {folder}` again, which downloads the rest"
        )
    return error


def _find_repo(folder: Path) -> str | None:
    """Return USER/NAME if `folder`, or the folder that it links to, is a snapshot in a hub's cache; None otherwise."""
    for path in (Path(os.path.abspath(folder)), folder.resolve()):
        home = path.parent.parent.name
        if path.parent.name == "snapshots" and home.startswith(_PREFIX):
            return home.removeprefix(_PREFIX).replace("--", "/")
    return None
