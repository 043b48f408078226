"""The record of an opened checkpoint: configurations, tensors, tokenizers and scheduler by name, of whatever source."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from pocketdiffusion.export.checkpoints.tensor import LazyTensor
from pocketdiffusion.export.checkpoints.weight_content import Content, read_content
from pocketdiffusion.runtime.progress import Progress


class OpenPipeline(Protocol):
    """A callable that opens a checkpoint with diffusers. It is sent to other processes with the checkpoint, so it can
    be pickled."""

    def __call__(self, pipeline_class: Any, **options: Any) -> Any:
        """Return a pipeline of diffusers' class `pipeline_class`, on the CPU. `options` are arguments of its
        `from_pretrained`: the dtype of each part (`torch_dtype`, with the key "default"), and the parts that are
        None."""
        ...


@dataclass(frozen=True)
class Checkpoint:
    """`configs` and `tensors` are by component name: "unet", "vae", "text_encoder", ...

    A configuration has the source's values, and diffusers' defaults where the source has none; tensors have the
    names that diffusers' and transformers' modules give them, whatever the source calls them. `name` is the name of the
    folder or the hub id, without any path. `revision` is the hub's commit.
    `tokenizers` are folders that contain a tokenizer's files only, `licence_files` the texts of the licence by file
    name. `weight_files` are the files that are read, by the names that enter the fingerprint. `open_pipeline` opens the
    reference. `allow_unexpected` are shell patterns of tensors that may be unused. `sampler` is the name of a sampler
    that replaces the checkpoint's own scheduler.
    """

    name: str
    revision: str | None
    model_index: Mapping[str, Any]
    configs: Mapping[str, Mapping[str, Any]]
    tensors: Mapping[str, Mapping[str, LazyTensor]]
    scheduler: Mapping[str, Any]
    tokenizers: Mapping[str, Path]
    licence: str
    licence_files: Mapping[str, Path]
    weight_files: Mapping[str, Path]
    open_pipeline: OpenPipeline
    allow_unexpected: tuple[str, ...] = ()
    sampler: str | None = None

    @cached_property
    def content(self) -> Content:
        """Return the fingerprint and the values that are not finite. The first use reads all weights."""
        return read_content(self.weight_files, self.tensors)

    @property
    def fingerprint(self) -> str:
        """Return the sha256 (hex) over the weight files' names and sha256 sums."""
        return self.content.fingerprint

    @property
    def nbytes(self) -> int:
        """Return the bytes that all weights have in their files."""
        places = {place for part in self.tensors.values() for tensor in part.values() for place in tensor.places}
        return sum(place.nbytes for place in places)


class FindParts(Protocol):
    """A function that says which parts of a checkpoint are read."""

    def __call__(
        self, title: str, model_index: Mapping[str, Any]
    ) -> tuple[Mapping[str, tuple[str, str]], tuple[str, ...]]:
        """Return (library, class) of each module to read by its name, and the names of the tokenizers. Raise UserError,
        naming the model `title`, if a class is not supported."""
        ...


@dataclass(frozen=True)
class OpenOptions:
    """Options for opening a checkpoint. `find_parts` says which of its parts to read. `revision` and `token` are for
    the hub. `allow_unexpected` are shell patterns of tensors that may be unused. `progress` receives one line about
    files of the source that are ignored."""

    find_parts: FindParts
    revision: str | None
    token: str | None
    allow_unexpected: tuple[str, ...]
    progress: Progress
