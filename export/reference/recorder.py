"""What a pipeline of diffusers computes while it draws one picture, kept by hooks."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial, wraps
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pocketdiffusion.export.families.parts.graph_call import GraphCall, Tensors
from pocketdiffusion.export.reference.pipeline import Pipeline
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.verify.recording import ARRAYS, OPTIONAL


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
    arrays: dict[str, Array] = {name: tensor.numpy() for name, tensor in found.items()}
    arrays["picture"] = picture
    assert arrays.keys() - set(OPTIONAL) == set(ARRAYS)
    return arrays
