"""Record the original: its own modules in float32, diffusers' scheduler, transformers' tokenizer, torch's noise."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from torch import Tensor, nn
from transformers import CLIPTokenizer

from pocketdiffusion.export.checkpoints.folder import Checkpoint
from pocketdiffusion.export.component import Component, load_module
from pocketdiffusion.runtime.sampling.samplers import default_sampler
from pocketdiffusion.runtime.verify.recording import Trajectory


@dataclass(frozen=True)
class Request:
    """What to draw. The sampler is the checkpoint's own."""

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

_RECORDED_SAMPLERS = {
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_ancestral": "EulerAncestralDiscreteScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "dpmpp_2m_karras": "DPMSolverMultistepScheduler",
    "pndm": "PNDMScheduler",
}


def record(
    checkpoint: Checkpoint,
    parts: Sequence[Component],
    requests: Sequence[Request] = REQUESTS,
    say: Callable[[str], None] = lambda line: None,
    watch: Callable[[str, nn.Module], None] = lambda component, module: None,
) -> list[Trajectory]:
    """One trajectory per request. Holds one module at a time, so that the largest sets the memory.

    `watch` is called with each module before it is run, to hook into it.
    """

    def load(name: str) -> nn.Module:
        module = load_module(named[name])
        watch(name, module)
        return module

    named = {part.spec.name: part for part in parts}
    drafts: list[dict[str, Any]] = [dict(vars(request)) for request in requests]
    say("text encoder")
    _encode_prompts(checkpoint, load("text_encoder"), drafts)
    say("UNet")
    unet, (_, channels, height, width) = load("unet"), named["vae_decoder"].spec.inputs[0].shape
    for draft in drafts:
        _denoise(checkpoint, unet, (1, int(channels), int(height), int(width)), draft)
    del unet
    say("VAE")
    decoder, encoder = load("vae_decoder"), load("vae_encoder")
    for draft in drafts:
        _draw(checkpoint, decoder, encoder, draft)
    return [Trajectory(**draft) for draft in drafts]


@torch.no_grad()
def _encode_prompts(checkpoint: Checkpoint, text_encoder: nn.Module, drafts: list[dict[str, Any]]) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(checkpoint.folder / "tokenizer")
    masked = checkpoint.configs["text_encoder"].get("use_attention_mask")
    for draft in drafts:
        given = tokenizer(
            [draft["negative_prompt"], draft["prompt"]],
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        draft["ids"] = given.input_ids.to(torch.int32).numpy()
        draft["mask"] = given.attention_mask.to(torch.int32).numpy() if masked else None
        inputs = [torch.from_numpy(draft[name]) for name in ("ids", "mask") if draft[name] is not None]
        rows = [text_encoder(*(rows[half : half + 1] for rows in inputs)) for half in (0, 1)]
        draft["states"] = torch.cat([states for states, _ in rows]).numpy()
        draft["pooled"] = torch.cat([pooled for _, pooled in rows]).numpy()


def reference_scheduler(checkpoint: Checkpoint, sampler: str) -> Any:
    """diffusers' scheduler for one of our sampler names, with the checkpoint's settings."""
    extra = {"use_karras_sigmas": True} if sampler.endswith("_karras") else {}
    return getattr(diffusers, _RECORDED_SAMPLERS[sampler]).from_config(checkpoint.scheduler, **extra)


@torch.no_grad()
def _denoise(checkpoint: Checkpoint, unet: nn.Module, shape: tuple[int, ...], draft: dict[str, Any]) -> None:
    draft["sampler"] = default_sampler(checkpoint.scheduler)
    scheduler = reference_scheduler(checkpoint, draft["sampler"])
    scheduler.set_timesteps(draft["steps"])
    generator = torch.Generator().manual_seed(draft["seed"])
    noise = torch.randn(shape, generator=generator)
    step_arguments = {"generator": generator} if "generator" in signature(scheduler.step).parameters else {}
    states = torch.from_numpy(draft["states"])
    latents = [noise * scheduler.init_noise_sigma]
    samples: list[Tensor] = []
    outputs: list[Tensor] = []
    for timestep in scheduler.timesteps:
        samples.append(scheduler.scale_model_input(latents[-1], timestep))
        halves = [unet(samples[-1], timestep.float()[None], states[i : i + 1])[0] for i in (0, 1)]
        outputs.append(torch.stack(halves, dim=1))
        guided = halves[0] + draft["guidance"] * (halves[1] - halves[0])
        latents.append(scheduler.step(guided, timestep, latents[-1], **step_arguments).prev_sample)
    draft["noise"] = noise.numpy()
    draft["timesteps"] = scheduler.timesteps.to(torch.float32).numpy()
    draft["samples"] = torch.cat(samples).numpy()
    draft["outputs"] = torch.cat(outputs).numpy()
    draft["latents"] = torch.cat(latents).numpy()


@torch.no_grad()
def _draw(checkpoint: Checkpoint, decoder: nn.Module, encoder: nn.Module, draft: dict[str, Any]) -> None:
    config = checkpoint.configs["vae"]
    latents = torch.from_numpy(draft["latents"][-1:])
    unscaled = latents / config["scaling_factor"] + (config.get("shift_factor") or 0.0)
    decoded = decoder(unscaled)[0]
    processor = VaeImageProcessor()
    picture = (processor.pt_to_numpy(processor.denormalize(decoded))[0] * 255).round().astype(np.uint8)
    draft["unscaled"], draft["decoded"], draft["picture"] = unscaled.numpy(), decoded.numpy(), picture
    draft["encoded"] = encoder(torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1)[0].numpy()
