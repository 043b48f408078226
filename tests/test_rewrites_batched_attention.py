from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnAddedKVProcessor2_0
from support.traced_parts import narrow_sd15_unet, psnr, text_model
from torch import nn

from pocketdiffusion.export.rewrites.batched_attention import apply, batched_attention, kept
from pocketdiffusion.export.rewrites.fused_attention import attention


def test_fires_on_every_attention(tmp_path: Path) -> None:
    assert apply(narrow_sd15_unet(tmp_path).build()) == 32
    assert apply(text_model()) == 3
    assert apply(nn.Sequential(nn.Linear(4, 4))) == 0


def test_does_not_fire_on_attention_that_does_more() -> None:
    normed = Attention(32, heads=4, dim_head=8, qk_norm="layer_norm")
    added = Attention(32, heads=4, dim_head=8, added_kv_proj_dim=16, processor=AttnAddedKVProcessor2_0())
    assert apply(nn.ModuleList([normed, added])) == 0
    assert sum(kept(nn.ModuleList([normed, added, Attention(32)])).values()) == 2


def test_more_than_one_sample_is_refused() -> None:
    q = torch.randn(2, 5, 8)
    with pytest.raises(ValueError, match="a batch of one sample, not 2"):
        batched_attention(q, q, q, 2, 0.5, False)


@pytest.mark.parametrize(
    "options",
    [
        {"heads": 4, "dim_head": 8},
        {"heads": 1, "dim_head": 32, "norm_num_groups": 8, "residual_connection": True, "rescale_output_factor": 2.0},
        {"heads": 2, "dim_head": 8, "cross_attention_dim": 24},
        {"heads": 4, "dim_head": 8, "scale_qk": False},
    ],
)
def test_parity_of_one_attention(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    module = Attention(32, **options).eval()
    x = torch.randn(1, 32, 4, 6) if "norm_num_groups" in options else torch.randn(1, 24, 32)
    context = torch.randn(1, 7, 24) if "cross_attention_dim" in options else None
    with torch.no_grad():
        before = module(x, context)
        assert apply(module) == 1
        after = module(x, context)
    assert psnr(before.numpy(), after.numpy()) > 125


@pytest.mark.parametrize("scale", [0.5, 0.3, 1.0])
@pytest.mark.parametrize("causal", [False, True])
def test_the_operator_alone(causal: bool, scale: float) -> None:
    q, k, v = (torch.randn(1, 5, 8) for _ in "qkv")
    torch.testing.assert_close(batched_attention(q, k, v, 2, scale, causal), attention(q, k, v, 2, scale, causal))
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(batched_attention, (q, k, v, 2, scale, causal), test_utils=checks)
