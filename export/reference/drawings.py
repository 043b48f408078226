"""Pictures that diffusers' own pipeline of a checkpoint draws on request: with any sampler, and from a picture."""

from dataclasses import dataclass
from typing import Any

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.reference.pipeline import open_pipeline, quiet
from pocketdiffusion.runtime.sampling.samplers import diffusers_class


@dataclass(frozen=True)
class Drawing:
    """The arguments of one picture. `sampler` None is the checkpoint's own scheduler; with a `strength`, a photo is
    redrawn."""

    prompt: str
    negative_prompt: str | None
    seed: int
    steps: int
    guidance: float
    sampler: str | None = None
    strength: float | None = None


def draw_with_pipeline(
    checkpoint: Checkpoint, drawing: Drawing, size: int, photo: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Return the picture, uint8 [size, size, 3], by the pipeline as diffusers opens it. If `drawing` has a strength,
    the image-to-image class begins with `photo`, of the same shape."""
    pipeline = open_pipeline(checkpoint, streamed=False)
    options: dict[str, Any] = {"width": size, "height": size}
    with quiet():
        if drawing.sampler is not None:
            name, settings = diffusers_class(drawing.sampler)
            pipeline.scheduler = getattr(diffusers, name).from_config(pipeline.scheduler.config, **settings)
        if drawing.strength is not None:
            pipeline = diffusers.AutoPipelineForImage2Image.from_pipe(pipeline)
            pipeline.set_progress_bar_config(disable=True)
            options = {"image": Image.fromarray(photo), "strength": drawing.strength}
        (picture,) = pipeline(
            drawing.prompt,
            negative_prompt=drawing.negative_prompt,
            num_inference_steps=drawing.steps,
            guidance_scale=drawing.guidance,
            generator=torch.Generator().manual_seed(drawing.seed),
            **options,
        ).images
    return np.asarray(picture)
