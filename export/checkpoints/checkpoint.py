"""What a checkpoint says about itself, by names: wherever it lies, and in whatever files."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from pocketdiffusion.export.checkpoints.tensor import LazyTensor
from pocketdiffusion.export.checkpoints.weight_content import Content, read_content


class OpenPipeline(Protocol):
    """How diffusers opens a checkpoint. It goes to other processes with the checkpoint, so that it can be pickled."""

    def __call__(self, pipeline_class: Any, **options: Any) -> Any:
        """Return a pipeline of that class of diffusers, on the CPU. `options` are those of its `from_pretrained`: the
        dtype of each part (`torch_dtype`, "default" among its keys), and the parts that are None."""
        ...


@dataclass(frozen=True)
class Checkpoint:
    """`configs` and `tensors` are by component name: "unet", "vae", "text_encoder", ...

    A configuration is that of the source, with diffusers' defaults where it is silent; tensors have the source's names.
    `name` is the name of the folder or the hub id, without any path. `revision` is the hub's commit. `tokenizers` are
    folders that hold a tokenizer's files and nothing else, `licence_files` the texts of the licence by file name.
    `weight_files` are the files that are read, by the names that the fingerprint is made of. `open_pipeline` opens the
    reference. `allow_unexpected` are shell patterns of tensors that may be left over. `sampler` is the name of one that
    takes the place of the checkpoint's own scheduler.
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
        """What a pass over all weights finds. The first use reads them."""
        return read_content(self.weight_files, self.tensors)

    @property
    def fingerprint(self) -> str:
        """The sha256 over the weight files' names and sha256 sums."""
        return self.content.fingerprint

    @property
    def nbytes(self) -> int:
        """Of all weights, bytes in their files."""
        places = {place for part in self.tensors.values() for tensor in part.values() for place in tensor.places}
        return sum(place.nbytes for place in places)


@dataclass(frozen=True)
class Wanted:
    """How a checkpoint shall be opened. `revision` and `token` are for the hub. `allow_unexpected` are shell patterns
    of tensors that may be left over. `progress` is told in one line what the source holds besides."""

    revision: str | None
    token: str | None
    allow_unexpected: tuple[str, ...]
    progress: Callable[[str], None]
