"""Record the original: diffusers' own pipeline draws, unchanged, and what its modules take and give is kept."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.families import find_family
from pocketdiffusion.export.families.parts.graph_call import GraphCall, Tensors
from pocketdiffusion.export.reference.array_store import ArrayStore
from pocketdiffusion.export.reference.pipeline import Pipeline, open_pipeline
from pocketdiffusion.export.reference.scheduler import set_sampler
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.verify.recording import ARRAYS, OPTIONAL, Trajectory


@dataclass(frozen=True)
class Request:
    """What to draw."""

    prompt: str
    negative_prompt: str = ""
    seed: int = 0
    steps: int = 10
    guidance: float = 7.5


# The gate's own prompts: with and without a negative prompt, short, long, and with marks that tokenizers get wrong.
REQUESTS = (
    Request("red apple", seed=1),
    Request("a picture of a tiger face", "blurry, low quality", seed=2, guidance=5.0),
    Request("Slice of pizza, food & cheese!", seed=3, guidance=3.0),
    Request("the sunflower's 2 petals", "grey", seed=4),
)


def record(
    checkpoint: Checkpoint,
    parts: Sequence[Component],
    requests: Sequence[Request] = REQUESTS,
    say: Callable[[str], None] = lambda line: None,
    watch: Callable[[str, nn.Module], None] | None = None,
    *,
    streamed: bool = True,
) -> list[Trajectory]:
    """Draw each request with diffusers' pipeline of the checkpoint, opened by its own loader.

    `watch` is called with the name of each component and a module that has its weights under the component's names,
    before anything runs, to hook into it; where it changes weights, `streamed` must be off. Raises UserError where the
    pipeline cannot be opened, or its scheduler does what no sampler here does.
    """
    pipeline = open_pipeline(checkpoint, streamed=streamed)
    sampler = set_sampler(checkpoint, pipeline)
    if watch is not None:
        for name, modules in find_family(checkpoint).modules(pipeline).items():
            watch(name, Named(modules))
    return draw(pipeline, checkpoint, parts, requests, say, sampler)


def draw(
    pipeline: Pipeline,
    checkpoint: Checkpoint,
    parts: Sequence[Component],
    requests: Sequence[Request],
    say: Callable[[str], None],
    sampler: str,
) -> list[Trajectory]:
    """As `record`, with a pipeline that is open; `sampler` is the name of what its scheduler does."""
    width, height = picture_size(parts)
    calls = find_family(checkpoint).calls(pipeline)
    store = ArrayStore()
    trajectories = []
    for number, request in enumerate(requests, 1):
        if not request.guidance > 1:
            raise UserError(f"guidance {request.guidance:g} draws one half alone: give more than 1")
        say(f"prompt {number} of {len(requests)}")
        with Recorder(pipeline, calls) as recorder:
            (picture,) = pipeline(
                request.prompt,
                negative_prompt=request.negative_prompt,
                num_inference_steps=request.steps,
                guidance_scale=request.guidance,
                generator=torch.Generator().manual_seed(request.seed),
                width=width,
                height=height,
            ).images
            drawn = np.asarray(picture)
            encode(pipeline, drawn)
        fields: dict[str, Any] = {**vars(request), "sampler": sampler}
        fields |= {name: store.put(array) for name, array in assemble(recorder, drawn).items()}
        trajectories.append(Trajectory(**fields))
    return trajectories


def picture_size(parts: Sequence[Component]) -> tuple[int, int]:
    """Width and height in pixels of what the decoder gives."""
    (decoder,) = (part for part in parts if part.spec.name == "vae_decoder")
    _, _, height, width = decoder.spec.outputs[0].shape
    return int(width), int(height)


@torch.no_grad()
def encode(pipeline: Pipeline, picture: Array) -> None:
    """Let the pipeline's VAE encode a picture, uint8 [H, W, 3], as image to image does."""
    pipeline.vae.encode(torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1)


class Named(nn.Module):
    """Modules of a pipeline under the names that a component's weights begin with; None where there is none."""

    def __init__(self, modules: Mapping[str, nn.Module | None]) -> None:
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)


class Recorder(TorchFunctionMode):
    """While it is entered, keeps every call of a graph in the pipeline, every step of its scheduler, and every draw of
    noise, in their order. Inputs are copied before the call, since a module may write into them."""

    def __init__(self, pipeline: Pipeline, calls: Mapping[str, GraphCall]) -> None:
        super().__init__()
        self.inputs: dict[str, list[Tensors]] = defaultdict(list)
        self.outputs: dict[str, list[Tensors]] = defaultdict(list)
        self.draws: list[Tensor] = []
        self.latents: list[Tensor] = []  # before the first step, and after each
        self._scheduler = pipeline.scheduler
        self._calls = calls
        self._undo: list[Callable[[], None]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.randn:
            self.draws.append(result.clone())
        return result

    def __enter__(self) -> "Recorder":
        for name, call in self._calls.items():
            takes = call.takes.register_forward_pre_hook(partial(self._take, name, call), with_kwargs=True)
            gives = call.gives.register_forward_hook(partial(self._give, name, call))
            self._undo += [takes.remove, gives.remove]
        step = self._scheduler.step

        @wraps(step)  # pipelines read its signature
        def recorded(model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
            if not self.latents:
                self.latents.append(sample.clone())
            result = step(model_output, timestep, sample, *args, **kwargs)
            self.latents.append((result[0] if isinstance(result, tuple) else result.prev_sample).clone())
            return result

        self._scheduler.step = recorded
        self._undo.append(partial(delattr, self._scheduler, "step"))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for undo in self._undo:
            undo()

    def _take(self, name: str, call: GraphCall, module: nn.Module, args: Any, kwargs: Any) -> None:
        arguments = signature(module.forward).bind(*args, **kwargs).arguments
        self.inputs[name].append({key: tensor.clone() for key, tensor in call.inputs(arguments).items()})

    def _give(self, name: str, call: GraphCall, module: nn.Module, args: Any, result: Any) -> None:
        self.outputs[name].append({key: tensor.clone() for key, tensor in call.outputs(result).items()})


def assemble(recorder: Recorder, picture: Array) -> dict[str, Array]:
    """The arrays of a trajectory. The pipeline encodes the positive prompt first, and then gives its UNet both halves
    of guidance in one call, the negative one first."""
    text, unet = recorder.inputs["text_encoder"], recorder.inputs["unet"]
    (decoder,), (encoded,) = recorder.inputs["vae_decoder"], recorder.outputs["vae_encoder"]
    (decoded,) = recorder.outputs["vae_decoder"]
    positive, negative = recorder.outputs["text_encoder"]
    halves = [call["out_sample"].chunk(2) for call in recorder.outputs["unet"]]
    found = {
        "ids": torch.cat([text[1]["input_ids"], text[0]["input_ids"]]),
        "states": torch.cat([negative["last_hidden_state"], positive["last_hidden_state"]]),
        "pooled": torch.cat([negative["pooler_output"], positive["pooler_output"]]),
        "noise": recorder.draws[0],
        "timesteps": torch.stack([call["timestep"].reshape(-1)[0] for call in unet]),
        "samples": torch.cat([call["sample"][:1] for call in unet]),
        "outputs": torch.stack([torch.cat(pair) for pair in halves]),
        "latents": torch.cat(recorder.latents),
        "unscaled": decoder["latent_sample"],
        "decoded": decoded["sample"],
        "encoded": encoded["latent_parameters"],
    }
    if "attention_mask" in text[0]:
        found["mask"] = torch.cat([text[1]["attention_mask"], text[0]["attention_mask"]])
    if "attention_mask" in text[0]:
        found["mask"] = torch.cat([text[1]["attention_mask"], text[0]["attention_mask"]])
    arrays: dict[str, Array] = {name: tensor.numpy() for name, tensor in found.items()}
    arrays["picture"] = picture
    assert arrays.keys() - set(OPTIONAL) == set(ARRAYS)
    return arrays
