"""Record the original: diffusers' own pipeline draws, unchanged, and the inputs and outputs of its modules are kept."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.families import calls, modules, program
from pocketdiffusion.export.families.parts.graph_call import GraphCall
from pocketdiffusion.export.families.parts.tiles import tiling_of
from pocketdiffusion.export.reference.array_store import ArrayStore
from pocketdiffusion.export.reference.pipeline import Pipeline, open_pipeline
from pocketdiffusion.export.reference.recorder import Recorder, assemble
from pocketdiffusion.export.reference.requests import REQUESTS as REQUESTS
from pocketdiffusion.export.reference.requests import Request as Request
from pocketdiffusion.export.reference.scheduler import set_sampler
from pocketdiffusion.runtime.errors import PocketDiffusionError, UserError
from pocketdiffusion.runtime.image import to_uint8
from pocketdiffusion.runtime.noise import TorchRandom
from pocketdiffusion.runtime.program import (
    CLASSIFIER_FREE,
    DECODE,
    DENOISE,
    ENCODE_IMAGE,
    Program,
    find_consumer,
    find_ends,
    find_producer,
    graphs_of,
    input_of,
    latents_shape,
    text_to_image,
)
from pocketdiffusion.runtime.progress import Progress
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.vae_tiles import Tiling, blend_tiles, cut_tiles
from pocketdiffusion.runtime.verify.controls import PROMPT, SEED, STEPS, shorten
from pocketdiffusion.runtime.verify.metrics import image_psnr_db
from pocketdiffusion.runtime.verify.recording import UNDIVIDED, Trajectory


def record(
    checkpoint: Checkpoint,
    parts: Sequence[Component],
    requests: Sequence[Request] = REQUESTS,
    progress: Progress = lambda line: None,
    watch: Callable[[str, nn.Module], None] | None = None,
    *,
    streamed: bool = True,
    controls: Collection[str] = (),
) -> list[Trajectory]:
    """Draw each request with diffusers' pipeline of the checkpoint, opened by its own loader. Return a trajectory each.

    Before anything runs, `watch` is called with the name of each component and a module that has its weights under the
    component's names, to register hooks; if it changes weights, `streamed` must be off. `controls` names more pictures
    per request (runtime/verify/controls.py), which show what a distance in dB means. Raise UserError if the pipeline
    cannot be opened, or no sampler here does what its scheduler does.
    """
    reference = open_reference(checkpoint, parts, streamed)
    if watch is not None:
        for name, own in reference.modules.items():
            watch(name, Named(own))
    store = ArrayStore()
    trajectories = []
    for number, request in enumerate(requests, 1):
        if reference.program.guidance == CLASSIFIER_FREE and not request.guidance > 1:
            raise UserError(
                f"guidance {request.guidance:g} does not use the negative prompt, and the recording needs both halves: "
                "give more than 1"
            )
        progress(f"prompt {number} of {len(requests)}")
        trajectories.append(draw(reference, request, store, controls))
    return trajectories


@dataclass(frozen=True)
class Reference:
    """An open pipeline of diffusers, and what its drawings are recorded by: its modules that have the weights of each
    component, the modules whose calls are recorded, the program that names their values, the size of its pictures
    (width, height), its sampler, and the tiles in which pictures are decoded."""

    pipeline: Pipeline
    modules: Mapping[str, Mapping[str, nn.Module | None]]
    calls: Mapping[str, GraphCall]
    program: Program
    size: tuple[int, int]
    sampler: str
    tiling: Tiling | None = None


def open_reference(checkpoint: Checkpoint, parts: Sequence[Component], streamed: bool) -> Reference:
    """Open the checkpoint's pipeline. Raise UserError as `record` does."""
    pipeline = open_pipeline(checkpoint, streamed=streamed)
    drawn, specs = program(checkpoint, parts), {part.spec.name: part.spec for part in parts}
    own, recorded = modules(checkpoint, pipeline, parts), calls(checkpoint, pipeline, parts)
    sampler = set_sampler(checkpoint, pipeline)
    latents, decoded = find_ends(drawn, specs)
    scale = int(decoded.shape[2]) // int(latents.shape[2])
    _, height, width = latents_shape(drawn, specs)
    size = width * scale, height * scale
    return Reference(pipeline, own, recorded, drawn, size, sampler, tiling_of(parts))


def check_reference(checkpoint: Checkpoint, parts: Sequence[Component]) -> None:
    """Open the reference, which needs a second and reads no weights, and check its scheduler. Raise UserError as
    `record` does, and if a graph needs more than latents, which text to image does not have."""
    drawn, specs = program(checkpoint, parts), {part.spec.name: part.spec for part in parts}
    latents, _ = find_ends(drawn, specs)
    for value in ("latents", "scaled_latents"):
        reader = find_consumer(drawn, DENOISE, value)
        if reader is not None and (channels := input_of(specs, *reader).shape[1]) != latents.shape[1]:
            raise UserError(
                f"{checkpoint.name}: its {reader[0]} has {channels} input channels, for inpainting, and latents have "
                f"{latents.shape[1]}: only text-to-image models can be exported"
            )
    set_sampler(checkpoint, open_pipeline(checkpoint))


def draw(reference: Reference, request: Request, store: ArrayStore, controls: Collection[str]) -> Trajectory:
    """Draw one request as `record` does. `store` keeps the recorded arrays. With tiles the decoder's calls are those of
    the tiles, and the picture is what they are blended to."""
    pipeline, drawn, tiling = reference.pipeline, reference.program, reference.tiling
    with Recorder(pipeline, reference.calls) as recorder:
        picture = undivided = draw_picture(pipeline, request, reference.size)
        if tiling is not None:
            picture = decode_tiles(pipeline, recorder, drawn, tiling)
        if ENCODE_IMAGE in text_to_image(drawn):
            encode(pipeline, picture)
    tiles = 1 if tiling is None else len(tiling.places)
    found = assemble(recorder, drawn, request.prompt, request.guidance, request.negative_prompt is None, tiles)
    own = {"noise": found.noise, "latents": found.latents, "picture": picture}
    arrays: dict[str, Any] = store.put(own if tiling is None else {**own, UNDIVIDED: undivided})
    return Trajectory(
        program=drawn,
        **vars(request),
        sampler=reference.sampler,
        calls=store.put_calls(found.calls),
        **arrays,
        controls=draw_controls(pipeline, request, reference.size, undivided, controls),
        tiling=tiling,
    )


@torch.no_grad()
def decode_tiles(pipeline: Pipeline, recorder: Recorder, program: Program, tiling: Tiling) -> Array:
    """Decode the latents that the pipeline decoded once more, with its own VAE in tiles. Return the blended picture,
    uint8 [H, W, 3]. The calls of the tiles take the place of the pipeline's call in `recorder`."""
    reader, maker = find_consumer(program, DECODE, "decoder_latents"), find_producer(program, DECODE, "decoded")
    assert reader is not None and maker is not None, "check_program refuses a program without"
    latents = recorder.inputs[reader[0]][-1][reader[1]].numpy()
    for graph in graphs_of(text_to_image(program)[DECODE]):
        recorder.inputs.pop(graph)
        recorder.outputs.pop(graph)
    for tile in cut_tiles(tiling, latents):
        pipeline.vae.decode(torch.from_numpy(tile))
    return to_uint8(blend_tiles(tiling, (made[maker[1]].numpy() for made in recorder.outputs[maker[0]])))


def draw_picture(pipeline: Pipeline, request: Request, size: tuple[int, int]) -> Array:
    """Return the pipeline's own picture, uint8 [H, W, 3]. Raise UserError if it cannot draw, or the seed is out of
    range."""
    TorchRandom(request.seed)  # checks the seed
    width, height = size
    try:
        (picture,) = pipeline(
            request.prompt,
            negative_prompt=request.negative_prompt,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance,
            generator=torch.Generator().manual_seed(request.seed),
            width=width,
            height=height,
        ).images
    except PocketDiffusionError:
        raise
    except Exception as error:  # a pipeline raises exceptions of any class
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"diffusers' {type(pipeline).__name__} cannot draw with this model: {reason[:300]}") from error
    return np.asarray(picture)


def draw_controls(
    pipeline: Pipeline, request: Request, size: tuple[int, int], picture: Array, names: Collection[str]
) -> dict[str, float]:
    """Return the PSNR (dB) of `picture`, drawn by `request`, against the original's pictures with another seed, one
    step less, and a neighbouring prompt: those of them that `names` has."""
    others = {SEED: replace(request, seed=request.seed ^ 1), PROMPT: replace(request, prompt=shorten(request.prompt))}
    if request.steps > 1:
        others[STEPS] = replace(request, steps=request.steps - 1)
    drawn = {name: draw_picture(pipeline, other, size) for name, other in others.items() if name in names}
    return {name: image_psnr_db(picture, other) for name, other in drawn.items()}


@torch.no_grad()
def encode(pipeline: Pipeline, picture: Array) -> None:
    """Encode a picture, uint8 [H, W, 3], with the pipeline's VAE, as image to image does."""
    pipeline.vae.encode(torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1)


class Named(nn.Module):
    """Modules of a pipeline under the first parts of the names of a component's weights; None for a missing module."""

    def __init__(self, modules: Mapping[str, nn.Module | None]) -> None:
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)
