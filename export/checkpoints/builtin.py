"""The models that come with the package: folders of pocketdiffusion/models, opened by name."""

from pathlib import Path

import pocketdiffusion
from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint, Wanted
from pocketdiffusion.export.checkpoints.folder import read_folder
from pocketdiffusion.runtime.errors import UserError

ORDER = 10
NAMES = ("emoji",)


def open(name: str, wanted: Wanted) -> Checkpoint | None:
    """Return the built-in model `name`, None where there is none of that name. Raises UserError where a folder here
    holds a checkpoint of that name: either may be meant."""
    if name not in NAMES:
        return None
    if wanted.revision is not None:
        raise UserError(f"a revision can be asked of hub ids only, and {name} is the built-in model")
    if (Path(name) / "model_index.json").exists():
        raise UserError(
            f"{name} is the built-in model's name, and a folder {name} here holds a checkpoint: give ./{name} for "
            "that, or run this in another folder for the built-in model"
        )
    return read_folder(_folder(name), name, None, wanted)


def _folder(name: str) -> Path:
    for base in pocketdiffusion.__path__:  # the same in a checkout, an editable install and a wheel
        if (folder := Path(base) / "models" / name).is_dir():
            return folder
    raise UserError(f"the built-in model {name} is missing: install pocketdiffusion again")
