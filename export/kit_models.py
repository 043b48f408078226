"""Tiny models with random weights, each with a feature that a reader of bundles can get wrong: for the reader's kit.

The seed of the weights is new for each kit, so that no reader can have stored its pictures. Weights through which a
prompt changes the picture are larger than usual: otherwise a wrong token would hardly be visible.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import nn

from pocketdiffusion.export.reference.pipeline import quiet
from pocketdiffusion.runtime.noise import TorchRandom

SIZE = 16  # of the pictures, pixels
WIDTH = 16  # of the text encoders' states
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000}
PNDM = {"set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1}
EULER = {"timestep_spacing": "leading", "steps_offset": 1}
LOUD = ("attn2.to_v", "attn2.to_out", "token_embedding", "linear_1")  # weights through which the prompt acts


@dataclass(frozen=True)
class KitModel:
    """A checkpoint of the kit. `tests` describes what a reader proves with it."""

    name: str
    tests: str
    write: Callable[[Path, Path], None]  # (folder to write, folder of the vocabulary)
    word: str = "a cat toy"  # in its prompts
    all_samplers: bool = False  # True if each sampler draws with it


def write_model(model: KitModel, folder: Path, vocabulary: Path, seed: int) -> None:
    """Write a diffusers folder whose weights are random with the seed `seed`. `vocabulary` is a folder with CLIP's
    vocab.json and merges.txt."""
    with torch.random.fork_rng(), quiet():
        torch.manual_seed(seed)
        model.write(folder, vocabulary)


def make_photo(seed: int) -> NDArray[np.uint8]:
    """Return a smooth picture, uint8 [SIZE, SIZE, 3], as the beginning of image to image."""
    waves = TorchRandom(seed).randn((3, 4))
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    levels = [np.sin(6 * (a * x + b * y) + c) + 0.5 * d for a, b, c, d in waves.astype(float)]
    return np.clip(127.5 + 90 * np.stack(levels, -1), 0, 255).astype(np.uint8)


def _write_pndm(folder: Path, vocabulary: Path) -> None:
    _write(folder, vocabulary, diffusers.PNDMScheduler(**BETAS, **PNDM))


def _write_v_prediction(folder: Path, vocabulary: Path) -> None:
    scheduler = diffusers.DDIMScheduler(
        **BETAS, prediction_type="v_prediction", timestep_spacing="trailing", clip_sample=False
    )
    _write(folder, vocabulary, scheduler)


def _write_bang(folder: Path, vocabulary: Path) -> None:
    """Write a model with the padding token "!", as in Stable Diffusion 2 and the second tokenizer of SDXL."""
    _write(folder, vocabulary, diffusers.EulerDiscreteScheduler(**BETAS, **EULER), pad="!")


def _write_ancestral(folder: Path, vocabulary: Path) -> None:
    _write(folder, vocabulary, diffusers.EulerAncestralDiscreteScheduler(**BETAS, **EULER))


def _write_added_token(folder: Path, vocabulary: Path) -> None:
    """Write a model with a textual inversion of two vectors, as diffusers' `load_textual_inversion` adds it."""
    pipeline = _pipeline(vocabulary, diffusers.PNDMScheduler(**BETAS, **PNDM))
    pipeline.tokenizer.add_tokens(["<cat-toy>", "<cat-toy>_1"])
    pipeline.text_encoder.resize_token_embeddings(len(pipeline.tokenizer))
    embeddings = pipeline.text_encoder.get_input_embeddings().weight.data
    embeddings[-2:] = 2 * torch.randn(2, WIDTH) * embeddings[:1000].std()
    pipeline.save_pretrained(folder, safe_serialization=True)


def _write_sdxl(folder: Path, vocabulary: Path) -> None:
    """Write a model with two text encoders, the second with a projection and padding "!"; an absent negative prompt is
    zeros."""
    settings: dict[str, Any] = {
        "cross_attention_dim": 2 * WIDTH,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": [1, 2],
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + WIDTH,
    }
    first, second = (_text_config(hidden_act=act, num_hidden_layers=2) for act in ("quick_gelu", "gelu"))
    pipeline = diffusers.StableDiffusionXLPipeline(
        vae=_loud(diffusers.AutoencoderKL(**VAE)),
        text_encoder=_loud(transformers.CLIPTextModel(first)),
        text_encoder_2=_loud(transformers.CLIPTextModelWithProjection(second)),
        tokenizer=_tokenizer(vocabulary, "<|endoftext|>"),
        tokenizer_2=_tokenizer(vocabulary, "!"),
        unet=_loud(diffusers.UNet2DConditionModel(**{**UNET, **settings})),
        scheduler=diffusers.EulerDiscreteScheduler(**BETAS, **EULER),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    for name, pad in (("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")):
        _keep_two_files(folder / name, vocabulary, pad)


MODELS = (
    KitModel("pndm", "the history of pndm, and its row more than steps; every sampler", _write_pndm, all_samplers=True),
    KitModel(
        "v-prediction", "a model that predicts v, timesteps from the end, factors of the output", _write_v_prediction
    ),
    KitModel("pads-with-bang", "padding with '!', which is an added token in the prompt too; input_scale", _write_bang),
    KitModel("ancestral", "noise in each row, and the order of draws", _write_ancestral),
    KitModel(
        "added-token",
        "a textual inversion of two vectors: tokens that the vocabulary lacks",
        _write_added_token,
        "a <cat-toy>",
    ),
    KitModel("sdxl", "two tokenizers and text encoders, a graph with more inputs, no negative prompt", _write_sdxl),
)

UNET: Mapping[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": WIDTH,
    "attention_head_dim": 2,
}
VAE: Mapping[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": 16,
}


def _write(folder: Path, vocabulary: Path, scheduler: Any, pad: str = "<|endoftext|>") -> None:
    _pipeline(vocabulary, scheduler, pad).save_pretrained(folder, safe_serialization=True)
    _keep_two_files(folder / "tokenizer", vocabulary, pad)


def _pipeline(vocabulary: Path, scheduler: Any, pad: str = "<|endoftext|>") -> Any:
    return diffusers.StableDiffusionPipeline(
        vae=_loud(diffusers.AutoencoderKL(**VAE)),
        text_encoder=_loud(transformers.CLIPTextModel(_text_config())),
        tokenizer=_tokenizer(vocabulary, pad),
        unet=_loud(diffusers.UNet2DConditionModel(**UNET)),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _text_config(**settings: Any) -> Any:
    return transformers.CLIPTextConfig(
        vocab_size=49408,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_attention_heads=2,
        projection_dim=WIDTH,
        bos_token_id=49406,
        eos_token_id=49407,
        pad_token_id=49407,
        **{"num_hidden_layers": 1, **settings},
    )


def _loud(module: nn.Module) -> nn.Module:
    """Change every vector from its initial value, which hides mistakes, and enlarge the weights in LOUD. Return the
    module."""
    for name, parameter in module.named_parameters():
        if parameter.ndim == 1:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
        elif any(part in name for part in LOUD):
            parameter.data.mul_(4)
    return module


def _tokenizer(vocabulary: Path, pad: str) -> Any:
    return transformers.CLIPTokenizer.from_pretrained(vocabulary, model_max_length=77, pad_token=pad)


def _keep_two_files(folder: Path, vocabulary: Path, pad: str) -> None:
    """Write a tokenizer's folder as most checkpoints have it: vocab.json, merges.txt, and settings."""
    shutil.rmtree(folder)
    folder.mkdir()
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(vocabulary / name, folder / name)
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": pad}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
