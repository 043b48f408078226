"""What a family does not serve is named in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.family_cases import CASES, CROSS, Case, Model, edit_json, refusal

REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "family": (
        "model_index.json",
        {"_class_name": "FluxPipeline"},
        "FluxPipeline, which cannot be exported; supported: ",
    ),
    "no family": ("model_index.json", {"_class_name": None}, "supported: "),
    "class": ("model_index.json", {"vae": ["diffusers", "AutoencoderTiny"]}, "vae is a AutoencoderTiny"),
    "no unet": ("model_index.json", {"unet": [None, None]}, "unet is a None"),
    "addition_embed_type": (
        "unet/config.json",
        {"addition_embed_type": "text_time"},
        "addition_embed_type 'text_time'",
    ),
    "class_embed_type": ("unet/config.json", {"class_embed_type": "timestep"}, "unet: class_embed_type"),
    "num_class_embeds": ("unet/config.json", {"num_class_embeds": 10}, "unet: num_class_embeds 10"),
    "time_cond_proj_dim": ("unet/config.json", {"time_cond_proj_dim": 256}, "unet: time_cond_proj_dim 256"),
    "encoder_hid_dim": ("unet/config.json", {"encoder_hid_dim": 64}, "unet: encoder_hid_dim 64"),
    "dual": ("unet/config.json", {"dual_cross_attention": True}, "unet: dual_cross_attention True"),
    "gligen": ("unet/config.json", {"attention_type": "gated"}, "unet: attention_type 'gated'"),
    "fourier": ("unet/config.json", {"time_embedding_type": "fourier"}, "unet: time_embedding_type 'fourier'"),
    "block": ("unet/config.json", {"down_block_types": [CROSS, "KDownBlock2D"]}, "down_block_types 'KDownBlock2D'"),
    "middle": ("unet/config.json", {"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}, "unet: mid_block_type"),
    "vae block": ("vae/config.json", {"up_block_types": ["AttnUpDecoderBlock2D"] * 2}, "vae: up_block_types"),
    "latents_mean": ("vae/config.json", {"latents_mean": [0.0] * 4}, "vae: latents_mean"),
    "activation of the UNet": ("unet/config.json", {"act_fn": "nonsense"}, "unet: act_fn 'nonsense' in config.json"),
    "activation": ("text_encoder/config.json", {"hidden_act": "no_such_thing"}, "hidden_act 'no_such_thing'"),
    "text heads": ("text_encoder/config.json", {"num_attention_heads": 7}, "text_encoder: "),
    "groups": ("unet/config.json", {"norm_num_groups": 7}, "unet: no module can be built from config.json"),
    "lengths": ("unet/config.json", {"block_out_channels": [8]}, "unet: no module can be built from config.json"),
    "a word for a number": (
        "vae/config.json",
        {"block_out_channels": "wide"},
        "vae/config.json: block_out_channels is 'wide'",
    ),
    "other width": ("unet/config.json", {"block_out_channels": [12, 16]}, "unet: the weights do not fit"),
    "other depth": ("text_encoder/config.json", {"num_hidden_layers": 3}, "text_encoder: the weights do not fit"),
    "a word for a component": ("model_index.json", {"unet": "UNet2DConditionModel"}, "unet is a None"),
    "a number for a class": ("model_index.json", {"unet": ["diffusers", 7]}, "unet is a 7"),
    "a word for a size": ("unet/config.json", {"sample_size": "big"}, "unet/config.json: sample_size is 'big'"),
    "too many sizes": ("unet/config.json", {"sample_size": [8, 8, 8]}, "sample_size [8, 8, 8]"),
    "no size": ("unet/config.json", {"sample_size": None}, "--size WxH"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_supported_is_named(kind: str, make: Callable[..., Model]) -> None:
    file, changes, words = REFUSED[kind]
    folder = make(CASES["small"]).folder
    edit_json(folder / file, **changes)
    assert words in refusal(folder)


def test_parts_that_do_not_fit_together_are_refused(make: Callable[..., Model]) -> None:
    assert "cross_attention_dim 24 does not fit" in refusal(make(Case(unet={"cross_attention_dim": 24})).folder)


def test_unet_of_other_channels_is_refused(make: Callable[..., Model]) -> None:
    assert "in_channels 8 and out_channels 4" in refusal(make(Case(unet={"in_channels": 8})).folder)


@pytest.mark.parametrize("size", [(33, 32), (32, 31), (0, 32), (-32, 32)])
def test_size_that_does_not_fit_is_refused(size: tuple[int, int], tiny_checkpoint: Path) -> None:
    assert "multiples of 2" in refusal(tiny_checkpoint, width=size[0], height=size[1])
