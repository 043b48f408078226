"""Folders of a narrow Stable Diffusion XL with random weights, as real ones are laid out."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    SchedulerMixin,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from numpy.typing import NDArray
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from pocketdiffusion.runtime.bundle.bundle import Bundle
from pocketdiffusion.runtime.pipeline import generate
from pocketdiffusion.runtime.verify.metrics import psnr_db
from support.family_cases import SMALL_TEXT
from support.tokenizer_folders import FIRST, plain

# Stable Diffusion XL's own but for the numbers of channels and layers.
UNET = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": [1, 1],
    "attention_head_dim": [1, 2],
    "use_linear_projection": True,
    "upcast_attention": None,
    "cross_attention_dim": 16 + 24,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 6 * 4 + 20,
}
VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (4, 8),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": 16,
    "scaling_factor": 0.13025,
    "force_upcast": True,
}
# Their configurations say 0, 2 and 1 for the marks, though the vocabulary has others: the end is the highest id then.
OLD = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
TEXT = {**SMALL_TEXT, "hidden_act": "quick_gelu", **OLD}
TEXT_2 = {
    **SMALL_TEXT,
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_attention_heads": 3,
    "num_hidden_layers": 2,
    "hidden_act": "gelu",
    "projection_dim": 20,
    **OLD,
}
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "interpolation_type": "linear",
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "use_karras_sigmas": False,
}


def write_sdxl(
    folder: Path,
    *,
    unet: Mapping[str, Any] = {},
    vae: Mapping[str, Any] = {},
    text: Mapping[str, Any] = {},
    text_2: Mapping[str, Any] = {},
    scheduler: SchedulerMixin | None = None,
    force_zeros: bool = True,
) -> Path:
    """Writes a folder that StableDiffusionXLPipeline opens: pictures of 16x16, latents of 8x8, states of 16 and 24.

    The second tokenizer pads with "!", whose id is 0. Returns the folder.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        modules = {
            "unet": UNet2DConditionModel(**{**UNET, **unet}),
            "vae": AutoencoderKL(**{**VAE, **vae}),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**{**TEXT, **text})),
            "text_encoder_2": CLIPTextModelWithProjection(CLIPTextConfig(**{**TEXT_2, **text_2})),
        }
        for module in modules.values():
            for parameter in module.parameters():
                parameter.data.add_(0.05 * torch.randn_like(parameter))  # norms and biases too
    for name, module in modules.items():
        module.eval().save_pretrained(folder / name)
    plain(folder / "tokenizer")
    plain(folder / "tokenizer_2", pad_token="!")
    scheduler = scheduler or EulerDiscreteScheduler(**SCHEDULER)
    scheduler.save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionXLPipeline",
        "_diffusers_version": "0.19.0.dev0",
        "force_zeros_for_empty_prompt": force_zeros,
        "scheduler": ["diffusers", type(scheduler).__name__],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def open_diffusers(folder: Path, pipeline: type = StableDiffusionXLPipeline) -> Any:
    """The original, of diffusers' class `pipeline`, in float32."""
    opened = pipeline.from_pretrained(folder, add_watermarker=False)  # type: ignore[attr-defined]
    opened.set_progress_bar_config(disable=True)
    return opened


def draw_floats(pipeline: Any, prompt: str, seed: int, **options: Any) -> NDArray[np.float32]:
    """What diffusers draws, float32 [1, 3, H, W] in 0..1."""
    generator = torch.Generator().manual_seed(seed)
    drawn = pipeline(prompt, generator=generator, output_type="np", **options).images
    return np.asarray(drawn, np.float32).transpose(0, 3, 1, 2)


def decibels(bundle: Bundle, theirs: NDArray[np.float32], prompt: str, **options: Any) -> float:
    """PSNR (dB) of what the bundle draws beside what diffusers drew, before either is rounded to 8 bits."""
    *_, last = generate(bundle, prompt, **options)
    assert last.decoded is not None and theirs.std() > 0.02
    return psnr_db(theirs, np.clip(last.decoded / 2 + 0.5, 0, 1), 1.0)


assert FIRST == SMALL_TEXT["vocab_size"]  # the vocabulary of `plain`
