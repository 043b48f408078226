"""Configurations of Stable Diffusion that are served, small, and checkpoints of them."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from pocketdiffusion.export.component import Component
from pocketdiffusion.export.families import components
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.runtime.errors import UserError
from support.tokenizer_folders import FIRST, plain

UNET_FILE, VAE_FILE = "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"


@dataclass(frozen=True)
class Model:
    """The originals and the folder that holds them."""

    folder: Path
    text_encoder: Any
    unet: Any
    vae: Any


@dataclass(frozen=True)
class Case:
    """What a configuration changes, against the small one below."""

    unet: Mapping[str, Any] = field(default_factory=dict)
    vae: Mapping[str, Any] = field(default_factory=dict)
    text: Mapping[str, Any] = field(default_factory=dict)
    size: tuple[int, int] | None = None


CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
UP_CROSS, UP_PLAIN = "CrossAttnUpBlock2D", "UpBlock2D"
SMALL_UNET = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": (CROSS, PLAIN),
    "up_block_types": (UP_PLAIN, UP_CROSS),
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
}
SMALL_VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": 16,
}
SMALL_TEXT = {
    "vocab_size": FIRST,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "projection_dim": 16,
    "bos_token_id": FIRST - 2,
    "eos_token_id": FIRST - 1,
    "pad_token_id": FIRST - 1,
}
THREE = {
    "block_out_channels": (8, 16, 24),
    "down_block_types": (CROSS, CROSS, PLAIN),
    "up_block_types": (UP_PLAIN, UP_CROSS, UP_CROSS),
}
FOUR = {
    "block_out_channels": (8, 16, 16, 24),
    "down_block_types": (CROSS, CROSS, CROSS, PLAIN),
    "up_block_types": (UP_PLAIN, UP_CROSS, UP_CROSS, UP_CROSS),
}
# One attention of either kind, as few blocks as there can be, and CLIP's vocabulary.
MICRO = Case(
    unet={"block_out_channels": (8,), "down_block_types": (PLAIN,), "up_block_types": (UP_PLAIN,)},
    vae={
        "block_out_channels": (8,),
        "down_block_types": ("DownEncoderBlock2D",),
        "up_block_types": ("UpDecoderBlock2D",),
    },
    text={
        "vocab_size": 49408,
        "num_hidden_layers": 1,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": 49407,
    },
)
CASES = {
    "small": Case(),
    "one block": Case(
        unet={"block_out_channels": (8,), "down_block_types": (CROSS,), "up_block_types": (UP_CROSS,)},
        vae={
            "block_out_channels": (8,),
            "down_block_types": ("DownEncoderBlock2D",),
            "up_block_types": ("UpDecoderBlock2D",),
        },
    ),
    "three blocks": Case(unet=THREE),
    "four blocks, two layers, as SD1.5": Case(unet=FOUR | {"layers_per_block": 2, "act_fn": "swish"}),
    "layers per block as a list": Case(unet=THREE | {"layers_per_block": [1, 2, 3]}),
    "mixed and mirrored otherwise": Case(
        unet=THREE | {"down_block_types": (PLAIN, CROSS, CROSS), "up_block_types": (UP_CROSS, UP_PLAIN, UP_CROSS)}
    ),
    "no cross attention outside the middle": Case(
        unet={"down_block_types": (PLAIN, PLAIN), "up_block_types": (UP_PLAIN, UP_PLAIN)}
    ),
    "heads by block, linear projections, as SD2": Case(
        unet=THREE | {"attention_head_dim": [1, 2, 3], "use_linear_projection": True, "upcast_attention": True},
        text={"hidden_act": "gelu"},
    ),
    "only cross attention": Case(unet={"only_cross_attention": True}),
    "only cross attention in one block": Case(unet=THREE | {"only_cross_attention": [True, False, False]}),
    "no middle": Case(unet={"mid_block_type": None}),
    "a middle without attention": Case(unet={"mid_block_type": "UNetMidBlock2D"}),
    "deep transformers": Case(unet=THREE | {"transformer_layers_per_block": [1, 2, 3]}),
    "deep transformers everywhere": Case(unet={"transformer_layers_per_block": 2, "layers_per_block": 2}),
    "deep transformers by layer, otherwise upwards": Case(
        unet={
            "layers_per_block": 2,
            "down_block_types": (CROSS, CROSS),
            "up_block_types": (UP_CROSS, UP_CROSS),
            "transformer_layers_per_block": [[1, 2], [2, 1]],
            "reverse_transformer_layers_per_block": [[1, 1, 2], [2, 1, 1]],
        }
    ),
    "other activations and time embeddings": Case(
        unet={
            "act_fn": "mish",
            "time_embedding_act_fn": "silu",
            "timestep_post_act": "silu",
            "resnet_time_scale_shift": "scale_shift",
            "flip_sin_to_cos": False,
            "freq_shift": 1,
            "center_input_sample": True,
        },
        vae={"act_fn": "relu"},
    ),
    "cross attention width by block": Case(unet={"cross_attention_dim": [16, 16]}),
    "inpainting": Case(unet={"in_channels": 9}),
    "wide latents": Case(
        unet={"in_channels": 16, "out_channels": 16},
        vae={"latent_channels": 16, "scaling_factor": 0.3611, "shift_factor": 0.1159, "use_quant_conv": False},
    ),
    "no convolutions around the latents": Case(vae={"use_quant_conv": False, "use_post_quant_conv": False}),
    "vae without attention": Case(vae={"mid_block_add_attention": False}),
    "vae of three blocks": Case(
        vae={
            "block_out_channels": (8, 8, 16),
            "layers_per_block": 2,
            "down_block_types": ("DownEncoderBlock2D",) * 3,
            "up_block_types": ("UpDecoderBlock2D",) * 3,
        }
    ),
    "text encoder of old files": Case(
        text={"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1, "hidden_act": "quick_gelu"}
    ),
    "short texts": Case(text={"max_position_embeddings": 20, "num_hidden_layers": 1, "hidden_act": "gelu"}),
    "sample size not square": Case(unet={"sample_size": [8, 12]}),
    "size given": Case(size=(32, 24)),
    "size that halves to odd numbers": Case(unet=THREE, size=(28, 20)),
}


def write_checkpoint(template: Path, folder: Path, case: Case, text_class: type = CLIPTextModel) -> Model:
    """A checkpoint of random weights in the given configuration, its scheduler that of `template`, and a
    tokenizer that fits the text encoder."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**(SMALL_UNET | dict(case.unet)))
    vae = AutoencoderKL(**(SMALL_VAE | dict(case.vae)))
    text = text_class(CLIPTextConfig(**(SMALL_TEXT | dict(case.text))))
    shutil.copytree(template, folder, ignore=shutil.ignore_patterns("unet", "vae", "text_encoder", "tokenizer"))
    plain(folder / "tokenizer", model_max_length=text.config.max_position_embeddings)
    for name, module in (("unet", unet), ("vae", vae), ("text_encoder", text)):
        for param in module.parameters():
            param.data.add_(0.05 * torch.randn_like(param))  # norms and biases too
        module.eval().requires_grad_(False).save_pretrained(folder / name)
    return Model(folder, text, unet, vae)


def parts_of(folder: Path, width: int | None = None, height: int | None = None) -> dict[str, Component]:
    checkpoint = open_checkpoint(str(folder), progress=lambda line: None)
    return {part.spec.name: part for part in components(checkpoint, width=width, height=height)}


def edit_json(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def refusal(folder: Path, **size: int) -> str:
    with pytest.raises(UserError) as caught:
        parts_of(folder, **size)
    message = str(caught.value)
    assert message and "\n" not in message
    return message
