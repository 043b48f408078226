"""Open a checkpoint from the source that has it, with the parts that its model family reads."""

from collections.abc import Sequence

from pocketdiffusion.export.checkpoints import open_from_source
from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint, OpenOptions
from pocketdiffusion.export.families import find_parts
from pocketdiffusion.runtime.progress import Progress


def open_checkpoint(
    name: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    allow_unexpected: Sequence[str] = (),
    progress: Progress = print,
) -> Checkpoint:
    """Return the checkpoint `name`, opened by the first source that has it. No weight is loaded.

    `name` is "emoji", a diffusers folder, or a hub id; `revision` and `token` are for hub ids. `allow_unexpected` are
    shell patterns of tensors that may be unused. `progress` receives one line about files of the source that are
    ignored. Raise UserError if it is not a checkpoint, is incomplete, is pickled, or belongs to a family that is not
    supported.
    """
    return open_from_source(name, OpenOptions(find_parts, revision, token, tuple(allow_unexpected), progress))
