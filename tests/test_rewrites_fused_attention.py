from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import Attention, AttnAddedKVProcessor2_0
from support.traced_parts import narrow_sd15_unet, psnr, text_model
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from pocketdiffusion.export.rewrites.fused_attention import apply, attention, kept


def test_fires_on_every_attention(tmp_path: Path) -> None:
    assert apply(narrow_sd15_unet(tmp_path).build()) == 32
    assert apply(text_model()) == 3
    assert apply(AutoencoderKL(block_out_channels=(32,), norm_num_groups=8)) == 2
    assert apply(nn.Sequential(nn.Linear(4, 4))) == 0


def test_keeps_the_names_of_parameters() -> None:
    model = text_model()
    names = list(model.state_dict())
    apply(model)
    assert sorted(model.state_dict()) == sorted(names)


def test_does_not_fire_on_attention_that_does_more() -> None:
    normed = Attention(32, heads=4, dim_head=8, qk_norm="layer_norm")
    added = Attention(32, heads=4, dim_head=8, added_kv_proj_dim=16, processor=AttnAddedKVProcessor2_0())
    vision = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=32,
            patch_size=8,
        )
    )
    assert kept(nn.ModuleList([normed, added, vision, Attention(32)])) == {
        "normalises its queries or keys": 1,
        "has another processor, AttnAddedKVProcessor2_0": 1,
        "is not of a text model, and not causal": 2,
    }
    for module in (normed, added, vision):
        holder = nn.ModuleList([module])
        assert apply(holder) == 0
        assert not any("Fused" in type(child).__name__ for child in holder.modules())


def test_a_mask_is_refused() -> None:
    module = Attention(32, heads=4, dim_head=8)
    apply(module)
    x = torch.randn(1, 5, 32)
    with pytest.raises(ValueError, match="no mask"):
        module(x, attention_mask=torch.zeros(1, 5))


@pytest.mark.parametrize(
    "options",
    [
        {"heads": 4, "dim_head": 8},
        {"heads": 1, "dim_head": 32, "norm_num_groups": 8, "residual_connection": True, "rescale_output_factor": 2.0},
        {"heads": 2, "dim_head": 8, "cross_attention_dim": 24, "cross_attention_norm": "layer_norm"},
        {"heads": 4, "dim_head": 8, "scale_qk": False},
        {"heads": 4, "dim_head": 8, "bias": True, "upcast_attention": True, "upcast_softmax": True},
    ],
)
def test_parity_of_one_attention(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    module = Attention(32, **options).eval()
    x = torch.randn(2, 32, 4, 6) if "norm_num_groups" in options else torch.randn(2, 24, 32)
    context = torch.randn(2, 7, 24) if "cross_attention_dim" in options else None
    with torch.no_grad():
        before = module(x, context)
        assert apply(module) == 1
        after = module(x, context)
    assert psnr(before.numpy(), after.numpy()) > 125


def test_a_text_model_stays_causal() -> None:
    model = text_model()
    apply(model)
    ids = torch.randint(0, 99, (1, 12))
    changed = ids.clone()
    changed[0, 8] = (ids[0, 8] + 1) % 99
    with torch.no_grad():
        one, other = model(ids).last_hidden_state, model(changed).last_hidden_state
    assert torch.equal(one[:, :8], other[:, :8])
    assert not torch.allclose(one[:, 8:], other[:, 8:])


def test_the_operator_alone() -> None:
    q, k, v = torch.randn(2, 5, 8), torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    weights = torch.softmax(q @ k.transpose(1, 2) * 0.5, dim=-1)
    torch.testing.assert_close(attention(q, k, v, 1, 0.5, False), weights @ v)
    torch.library.opcheck(attention, (q, k, v, 2, 0.5, False), test_utils=("test_schema", "test_faketensor"))
