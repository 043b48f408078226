"""What a checkpoint on disk says about itself, and where its weights lie."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pocketdiffusion.export.checkpoints.weight_content import Content, read_content
from pocketdiffusion.export.component import TensorRef


@dataclass(frozen=True)
class Checkpoint:
    """`configs`, `tensors` and `files` are by component name: "unet", "vae", "text_encoder", ...

    A configuration is that of the file, with diffusers' defaults where it is silent; tensors have the file's names;
    `files` are the weight files that are read. `variants` names the components that have no full weights, with the
    variant that is read in their place. `name` is the name of the folder or the hub id, without any path. `revision` is
    the hub's commit. `allow_unexpected` are shell patterns of tensors that may be left over. `sampler` is the name of
    one that takes the place of the checkpoint's own scheduler.
    """

    name: str
    folder: Path
    revision: str | None
    model_index: Mapping[str, Any]
    configs: Mapping[str, Mapping[str, Any]]
    tensors: Mapping[str, Mapping[str, TensorRef]]
    scheduler: Mapping[str, Any]
    tokenizers: Mapping[str, Path]
    licence: str
    files: Mapping[str, tuple[str, ...]]
    variants: Mapping[str, str]
    allow_unexpected: tuple[str, ...] = ()
    sampler: str | None = None

    @cached_property
    def content(self) -> Content:
        """What a pass over all weights finds. The first use reads them."""
        names = [f"{part}/{name}" for part, files in self.files.items() for name in files]
        return read_content(self.folder, names, self.tensors)

    @property
    def fingerprint(self) -> str:
        """The sha256 over the weight files' names and sha256 sums."""
        return self.content.fingerprint

    @property
    def nbytes(self) -> int:
        """Of all weights, bytes on disk."""
        return sum(ref.nbytes for part in self.tensors.values() for ref in part.values())
