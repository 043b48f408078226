"""diffusers' own pipeline of a checkpoint, opened by its own loader: with its corrections, tokenizer and scheduler.

diffusers reads a folder itself, so that mistakes of our own reading show in the first picture.
"""

import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from typing import Any

import diffusers
import torch
import transformers
from torch import nn

from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint, OpenPipeline
from pocketdiffusion.export.families import find_family
from pocketdiffusion.export.reference.float32 import check_float32
from pocketdiffusion.export.reference.streamed_weights import stream_weights
from pocketdiffusion.runtime.errors import UserError

Pipeline = Any  # diffusers' classes have no types

# Parts that check or guide pictures; without them a pipeline draws the same pictures.
LEFT_OUT = ("safety_checker", "feature_extractor", "image_encoder")
_HALVES = {frozenset({"float16"}): torch.float16, frozenset({"bfloat16"}): torch.bfloat16}


def open_pipeline(checkpoint: Checkpoint, *, streamed: bool = True) -> Pipeline:
    """Open the checkpoint as the class of diffusers that its family names, in float32 on the CPU.

    `streamed` leaves weights in their files; otherwise they are in memory, and may be changed. Raise UserError if
    diffusers cannot open the checkpoint, and if torch does not compute in float32.
    """
    stored = {
        part: {place.dtype for tensor in tensors.values() for place in tensor.places}
        for part, tensors in checkpoint.tensors.items()
    }
    try:
        return open_class(find_family(checkpoint).PIPELINE, checkpoint.open_pipeline, stored, streamed=streamed)
    except UserError:
        raise
    except Exception as error:  # diffusers and transformers have no exception classes for a wrong folder
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{checkpoint.name}: diffusers cannot open it: {reason[:300]}") from error


def open_class(
    name: str, opener: OpenPipeline, stored: Mapping[str, Collection[str]], *, streamed: bool = True
) -> Pipeline:
    """Open a pipeline as `open_pipeline` does, by the name of a class of diffusers and its opener. `stored` has, for
    each model, the dtypes of its stored weights, by torch's names."""
    check_float32()
    dtypes = {part: _resting_dtype(found) for part, found in stored.items()} if streamed else {}
    with quiet():
        pipeline_class = getattr(diffusers, name)
        parameters = signature(pipeline_class.__init__).parameters
        options: dict[str, Any] = {name: None for name in LEFT_OUT if name in parameters}
        options |= {name: False for name in ("requires_safety_checker", "add_watermarker") if name in parameters}
        pipeline = opener(pipeline_class, torch_dtype={"default": torch.float32, **dtypes}, **options)
    pipeline.set_progress_bar_config(disable=True)
    for module in pipeline.components.values():
        if isinstance(module, nn.Module):
            module.eval().requires_grad_(False)
            if streamed:
                stream_weights(module)
    return pipeline


def _resting_dtype(stored: Collection[str]) -> torch.dtype:
    """Return float16 or bfloat16 if all floats are stored in it, otherwise float32: with another dtype a loader would
    round. For mixed files this needs the memory of a copy in float32."""
    return _HALVES.get(frozenset(dtype for dtype in stored if "float" in dtype), torch.float32)


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress progress bars, advice and deprecation warnings of diffusers and transformers."""
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
