"""The models that come with the package: folders of pocketdiffusion/models, opened by name."""

from pathlib import Path

import pocketdiffusion
from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint, OpenOptions
from pocketdiffusion.export.checkpoints.folder import read_folder
from pocketdiffusion.runtime.errors import UserError

ORDER = 10
NAMES = ("emoji",)


def open(name: str, options: OpenOptions) -> Checkpoint | None:
    """Return the built-in model `name`, None if there is none of that name. Raise UserError if the current folder has a
    checkpoint in a folder of that name: the name is then ambiguous."""
    if name not in NAMES:
        return None
    if options.revision is not None:
        raise UserError(f"a revision can be given for hub ids only, and {name} is the built-in model")
    if (Path(name) / "model_index.json").exists():
        raise UserError(
            f"{name} is the built-in model's name, and the folder {name} here contains a checkpoint: give ./{name} to "
            "export that checkpoint, or run the command in another folder to export the built-in model"
        )
    return read_folder(_folder(name), name, None, options)


def _folder(name: str) -> Path:
    for base in pocketdiffusion.__path__:  # the same in a checkout, an editable install and a wheel
        if (folder := Path(base) / "models" / name).is_dir():
            return folder
    raise UserError(f"the built-in model {name} is missing: install pocketdiffusion again")
