"""How often each rewrite fires on Stable Diffusion 1.5, in its full size, on modules without weights."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import CLIPTextConfig

from pocketdiffusion.export.families.parts import autoencoder_kl, clip_text, unet2d
from pocketdiffusion.export.rewrites import apply_rewrites

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))
from full_size import TEXT, UNET, VAE  # noqa: E402

ATTENTIONS = {"text_encoder": 12, "unet": 32, "vae_decoder": 1, "vae_encoder": 1}
COUNTS = {  # of each rewrite; what is not named is 0
    "batched_attention": ATTENTIONS,
    "centred_group_norm": {"unet": 61, "vae_decoder": 30, "vae_encoder": 22},
    "centred_layer_norm": {"text_encoder": 25, "unet": 48},
    "chunked_attention": ATTENTIONS,
    "fused_attention": ATTENTIONS,
    "quick_gelu": {"text_encoder": 12},
    "split_einsum": {"unet": 32},
    "tanh_gelu": {"unet": 16},
    # modules: one for each residual block, which calls it twice or thrice, one at the end, one for the timestep
    "tanh_sigmoid": {"text_encoder": 12, "unet": 22 + 2, "vae_decoder": 14 + 1, "vae_encoder": 10 + 1},
}


def module(name: str) -> nn.Module:
    with torch.device("meta"):
        if name == "text_encoder":
            return clip_text.TextEncoder(CLIPTextConfig(**TEXT))
        if name == "unet":
            return unet2d.Denoiser(unet2d.read_config("unet", UNET))
        config = autoencoder_kl.read_config("vae", VAE)
        decodes = name == "vae_decoder"
        return autoencoder_kl.LatentDecoder(config) if decodes else autoencoder_kl.LatentEncoder(config)


@pytest.mark.parametrize("graph", ATTENTIONS)
@pytest.mark.parametrize("rewrite", COUNTS)
def test_counts(graph: str, rewrite: str) -> None:
    assert apply_rewrites(module(graph), [rewrite]) == {rewrite: COUNTS[rewrite].get(graph, 0)}


def test_every_rewrite_is_counted() -> None:
    found = {file.stem for file in (ROOT / "export/rewrites").glob("*.py")} - {"__init__"}
    assert found == set(COUNTS)
