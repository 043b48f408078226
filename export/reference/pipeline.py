"""diffusers' own pipeline of a checkpoint, opened by its own loader: with its repairs, tokenizer and scheduler.

It reads the folder by itself, so that what our own reading of it gets wrong shows in the first picture.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from torch import nn

from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.checkpoints.safetensors_header import read_header
from pocketdiffusion.export.families import find_family
from pocketdiffusion.export.reference.float32 import check_float32
from pocketdiffusion.export.reference.streamed_weights import stream_weights
from pocketdiffusion.runtime.errors import UserError

Pipeline = Any  # diffusers' classes have no types

# Parts that judge or guide pictures; without them a pipeline draws the same.
LEFT_OUT = ("safety_checker", "feature_extractor", "image_encoder")
_HALVES = {frozenset({"float16"}): torch.float16, frozenset({"bfloat16"}): torch.bfloat16}


def open_pipeline(checkpoint: Checkpoint, *, streamed: bool = True) -> Pipeline:
    """Open the checkpoint as the class of diffusers that its family names, in float32 on the CPU.

    `streamed` leaves weights in their files; else they are in memory, and may be changed. Raises UserError where
    diffusers cannot open the folder, and where torch does not compute in float32.
    """
    parts = {part: [checkpoint.folder / part / name for name in checkpoint.files[part]] for part in checkpoint.tensors}
    try:
        return open_class(
            find_family(checkpoint).PIPELINE, checkpoint.folder, parts, variant=_variant(checkpoint), streamed=streamed
        )
    except UserError:
        raise
    except Exception as error:  # diffusers and transformers have no classes of errors for a folder that is wrong
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{checkpoint.name}: diffusers cannot open it: {reason[:300]}") from error


def open_class(
    name: str, folder: Path, parts: Mapping[str, Sequence[Path]], *, variant: str | None = None, streamed: bool = True
) -> Pipeline:
    """As `open_pipeline`, by the name of a class of diffusers and the weight files of its models."""
    check_float32()
    dtypes = {part: _stored_dtype(files) for part, files in parts.items()} if streamed else {}
    with quiet():
        pipeline_class = getattr(diffusers, name)
        wanted = signature(pipeline_class.__init__).parameters
        options: dict[str, Any] = {name: None for name in LEFT_OUT if name in wanted}
        options |= {name: False for name in ("requires_safety_checker", "add_watermarker") if name in wanted}
        pipeline = pipeline_class.from_pretrained(
            folder,
            torch_dtype={"default": torch.float32, **dtypes},
            variant=variant,
            use_safetensors=True,
            local_files_only=True,
            **options,
        )
    pipeline.set_progress_bar_config(disable=True)
    for module in pipeline.components.values():
        if isinstance(module, nn.Module):
            module.eval().requires_grad_(False)
            if streamed:
                stream_weights(module)
    return pipeline


def _stored_dtype(files: Sequence[Path]) -> torch.dtype:
    """float16 or bfloat16 where the weight files hold no floats but such, else float32: with another dtype a loader
    would round. What it costs where files disagree is a copy in float32."""
    kinds = {ref.dtype for file in files for ref in read_header(file).values()}
    return _HALVES.get(frozenset(kind for kind in kinds if "float" in kind), torch.float32)


def _variant(checkpoint: Checkpoint) -> str | None:
    """The variant that diffusers must be given to read the files that were chosen, such as "fp16"."""
    return max(checkpoint.variants.values(), default=None)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep bars, advice and deprecations of the two libraries off the user's screen."""
    libraries: tuple[Any, Any] = (diffusers.utils.logging, transformers.utils.logging)
    before: Mapping[Any, int] = {library: library.get_verbosity() for library in libraries}
    for library in libraries:
        library.set_verbosity(50)
        library.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for library, level in before.items():
            library.set_verbosity(level)
            library.enable_progress_bar()
