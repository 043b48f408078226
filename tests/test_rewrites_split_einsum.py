from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, Transformer2DModel
from diffusers.models.attention_processor import Attention
from support.traced_parts import SD15_SITES, SD15_UNET, component_of, narrow_sd15_unet, psnr, text_model
from torch import nn

from pocketdiffusion.export.component import load_module
from pocketdiffusion.export.families import components
from pocketdiffusion.export.families.parts import unet2d
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.export.rewrites import apply_rewrites, fused_attention
from pocketdiffusion.export.rewrites.split_einsum import (
    ChannelNorm,
    GatedGELU,
    Pointwise,
    apply,
    by_column,
    by_head,
    channel_layer_norm,
    kept,
    split_attention,
)
from pocketdiffusion.export.trace import trace
from pocketdiffusion.runtime.errors import ProofError

REWRITES = ("split_einsum", "fused_attention", "quick_gelu")
PLAIN = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 16,
    "norm_num_groups": 4,
    "cross_attention_dim": 24,
}


def transformer(**options: Any) -> nn.ModuleList:
    """One transformer of two heads of 8 channels, with no weight that is zero or one, in a module of its own."""
    torch.manual_seed(0)
    model = Transformer2DModel(**{**PLAIN, **options}).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return nn.ModuleList([model])


def test_fires_on_every_transformer_of_a_unet(tmp_path: Path) -> None:
    model = narrow_sd15_unet(tmp_path).build()
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert kept(model) == {}
    assert apply(model) == SD15_SITES["attention"] == 32
    for name, tensor in model.state_dict().items():
        linear = len(shapes[name]) == 2 and "transformer_blocks" in name
        assert list(tensor.shape) == shapes.pop(name) + [1, 1] * linear
    assert not shapes
    kinds = [type(module) for module in model.modules()]
    assert kinds.count(ChannelNorm) == SD15_SITES["layer_norm"] == 48
    assert kinds.count(GatedGELU) == SD15_SITES["gelu"] == 16
    assert kinds.count(Pointwise) == 16 * (2 * 4 + 2)
    assert nn.LayerNorm not in kinds and Attention not in kinds
    assert not any("transformer_blocks" in name for name, child in model.named_modules() if type(child) is nn.Linear)
    assert apply(model) == 0


@pytest.mark.slow
def test_every_kind_of_site_is_in_the_traced_program(tmp_path: Path) -> None:
    part = narrow_sd15_unet(tmp_path)
    traced = trace(part, REWRITES, open_batch=False)
    assert traced.rewrites == {"split_einsum": 32, "fused_attention": 0, "quick_gelu": 0}
    calls = [str(node.target) for node in traced.program.graph.nodes]
    assert calls.count("pocketdiffusion.split_attention.default") == 32
    assert calls.count("pocketdiffusion.channel_layer_norm.default") == 48
    assert calls.count("aten.gelu.default") == 16
    assert not any("permute" in call for call in calls)
    assert sum("transpose" in call for call in calls) == 16  # the prompt's states, where each transformer takes them
    for kind in ("attention", "layer_norm"):
        wrong = replace(part, sites={**part.sites, kind: part.sites[kind] + 1})
        with pytest.raises(ProofError, match=f"unet: {SD15_SITES[kind]} {kind} sites were found"):
            trace(wrong, REWRITES, open_batch=False)


def test_what_it_leaves_alone_needs_another_rewrite(tiny_checkpoint: Path) -> None:
    """Its marks count the layer_norm that stays in a text encoder, but no attention that is not one operator."""
    part = next(p for p in components(open_checkpoint(str(tiny_checkpoint))) if p.spec.name == "text_encoder")
    assert trace(part, REWRITES, open_batch=False).rewrites == {
        "split_einsum": 0,
        "fused_attention": 2,
        "quick_gelu": 2,
    }
    with pytest.raises(
        ProofError,
        match="text_encoder: 0 attention sites were found in the traced graph, and .* configuration requires 2",
    ):
        trace(part, ("split_einsum", "quick_gelu"), open_batch=False)


@pytest.mark.parametrize(
    "options",
    [
        {"norm_type": "ada_norm", "num_embeds_ada_norm": 10},
        {"norm_type": "ada_norm_zero", "num_embeds_ada_norm": 10},
        {"norm_elementwise_affine": False},
        {"activation_fn": "gelu"},
        {"activation_fn": "geglu-approximate"},
        {"attention_type": "gated"},
        {"cross_attention_dim": None},
        {"in_channels": None, "num_vector_embeds": 7, "sample_size": 4},
        {"patch_size": 2, "sample_size": 8, "norm_type": "ada_norm_zero", "num_embeds_ada_norm": 10},
    ],
)
def test_does_not_fire_on_transformers_of_another_kind(options: dict[str, Any]) -> None:
    model = transformer(**options)
    attentions = sum(isinstance(child, Attention) for child in model.modules())
    assert apply(model) == 0 and type(model[0]) is Transformer2DModel
    assert kept(model) == {"lies in a transformer of another kind": attentions}


@pytest.mark.parametrize(
    "options",
    [
        {"qk_norm": "layer_norm"},
        {"residual_connection": True},
        {"rescale_output_factor": 2.0},
        {"norm_num_groups": 4},
        {"cross_attention_norm": "layer_norm", "cross_attention_dim": 16},
    ],
)
def test_does_not_fire_on_attention_that_does_more(options: dict[str, Any]) -> None:
    model = transformer()
    model.set_submodule("0.transformer_blocks.0.attn1", Attention(16, heads=2, dim_head=8, **options))
    assert apply(model) == 0


def test_does_not_fire_after_another_rewrite() -> None:
    model = transformer()
    assert fused_attention.apply(model) == 2 and apply(model) == 0


def test_leaves_the_text_encoder_and_the_vae_alone_and_says_why() -> None:
    text, vae = text_model(), AutoencoderKL(block_out_channels=(32,), norm_num_groups=8)
    for model, count, word in ((text, 3, "text encoder"), (vae, 2, "VAE")):
        assert apply(model) == 0
        ((reason, found),) = kept(model).items()
        assert found == count and word in reason


def test_a_mask_is_refused() -> None:
    model = transformer()
    apply(model)
    x, context = torch.randn(1, 16, 4, 6), torch.randn(1, 7, 24)
    for option in ("attention_mask", "encoder_attention_mask"):
        with pytest.raises(ValueError, match="no mask"):
            model[0](x, context, **{option: torch.zeros(1, 7)})


@pytest.mark.parametrize(
    ("options", "batch"),
    [
        ({}, 1),
        ({}, 2),
        ({"num_layers": 2}, 1),
        ({"use_linear_projection": True}, 1),
        ({"attention_bias": True}, 1),
        ({"num_attention_heads": 1, "attention_head_dim": 16}, 1),
        ({"only_cross_attention": True}, 1),
        ({"upcast_attention": True}, 1),
    ],
)
def test_parity_of_one_transformer(options: dict[str, Any], batch: int) -> None:
    model = transformer(**options)
    x, context = torch.randn(batch, 16, 4, 6), torch.randn(batch, 7, 24)
    with torch.no_grad():
        (before,) = model[0](x, context, return_dict=False)
        assert apply(model) == 2 * options.get("num_layers", 1)
        (after,) = model[0](x, context, return_dict=False)
    assert psnr(before.numpy(), after.numpy()) > 125


def test_parity_of_one_transformer_without_a_prompt() -> None:
    model = transformer(cross_attention_dim=16)
    x = torch.randn(1, 16, 4, 6)
    with torch.no_grad():
        (before,) = model[0](x, return_dict=False)
        apply(model)
        (after,) = model[0](x, return_dict=False)
    assert psnr(before.numpy(), after.numpy()) > 125


def test_parity_of_whole_models(tiny_checkpoint: Path) -> None:
    for part in components(open_checkpoint(str(tiny_checkpoint))):
        module, example = load_module(part), part.example(0)
        split = part.sites["attention"] if part.spec.name == "unet" else 0
        with torch.no_grad():
            before = module(*example.values())
            assert sum(kept(module).values()) == part.sites["attention"] - split
            assert apply_rewrites(module, ["split_einsum"]) == {"split_einsum": split}
            after = module(*example.values())
        for one, other in zip(before, after, strict=True):
            assert psnr(one.numpy(), other.numpy()) > 120


@pytest.mark.parametrize("linear", [False, True])
def test_parity_of_stable_diffusions_topology(tmp_path: Path, linear: bool) -> None:
    """Stable Diffusion 2 has linear layers on both sides of a transformer, where 1 has convolutions."""
    config = unet2d.read_config("unet", {"sample_size": 16, **SD15_UNET, "use_linear_projection": linear})
    inputs = {
        "sample": torch.randn(1, 4, 16, 16),
        "timestep": torch.tensor([601.0]),
        "encoder_hidden_states": torch.randn(1, 77, 64),
    }
    outputs = {"out_sample": (1, 4, 16, 16)}
    part = component_of(tmp_path, lambda: unet2d.Denoiser(config), inputs, outputs, unet2d.sites(config), "unet")
    module = load_module(part)
    with torch.no_grad():
        (before,) = module(*inputs.values())
        assert apply(module) == 32
        (after,) = module(*inputs.values())
    assert psnr(before.numpy(), after.numpy()) > 120
    assert sum(isinstance(child, Pointwise) for child in module.modules()) == 160 + 32 * linear


def test_the_operators_alone() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 8, 1, 5), torch.randn(2, 8, 1, 3), torch.randn(2, 8, 1, 3)
    q4, k4, v4 = (t.reshape(2, 2, 4, -1).transpose(2, 3) for t in (q, k, v))
    wanted = F.scaled_dot_product_attention(q4, k4, v4, scale=0.3).transpose(2, 3).reshape(2, 8, 1, 5)
    torch.testing.assert_close(split_attention(q, k, v, 2, 0.3), wanted)
    torch.library.opcheck(split_attention, (q, k, v, 2, 0.3), test_utils=("test_schema", "test_faketensor"))
    x, weight, bias = 3 + torch.randn(1, 16, 1, 5), torch.randn(16), torch.randn(16)
    weight[3] = 0.0
    normal = F.layer_norm(x.transpose(1, 3), (16,), weight, bias, 1e-5).transpose(1, 3)
    assert psnr(normal.numpy(), channel_layer_norm(x, weight, bias, 1e-5).numpy()) > 125
    torch.library.opcheck(channel_layer_norm, (x, weight, bias, 1e-5), test_utils=("test_schema", "test_faketensor"))


def test_layer_norm_holds_in_half_where_the_mean_is_large() -> None:
    torch.manual_seed(0)
    x, weight, bias = 60 + torch.randn(1, 64, 1, 4), torch.ones(64), torch.zeros(64)
    wanted = F.layer_norm(x.transpose(1, 3), (64,), weight, bias, 1e-5).transpose(1, 3).numpy()
    assert psnr(wanted, by_column(x.half(), weight.half(), bias.half(), 1e-5).float().numpy()) > 45


def test_scores_hold_in_half_where_the_product_alone_would_not() -> None:
    """64 channels of 40 on either side: 102400 unscaled, which float16 has not, and 12800 scaled by 1/8."""
    q = torch.full((1, 64, 1, 2), 40.0)
    k, v = torch.cat([q, 0.5 * q], 3), torch.randn(1, 64, 1, 4)
    found = by_head(q.half(), k.half(), v.half(), 1, 0.125).float()
    torch.testing.assert_close(found, by_head(q, k, v, 1, 0.125), atol=2e-3, rtol=1e-3)
