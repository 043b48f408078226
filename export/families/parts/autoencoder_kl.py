"""The KL autoencoder (https://arxiv.org/abs/2112.10752, section 3.1) as two graphs: latents to picture, and back.

One of the parts that families are made of.
"""

from collections.abc import Mapping
from typing import Any

from diffusers import AutoencoderKL
from diffusers.models.activations import ACT2CLS
from torch import Tensor, nn

from pocketdiffusion.export.arguments import read_arguments
from pocketdiffusion.export.checkpoints.safetensors_header import rename, without_kernel
from pocketdiffusion.export.component import TensorRef
from pocketdiffusion.runtime.errors import UserError

# The values of a configuration that are served; what is not named here is free.
_SERVED: Mapping[str, tuple[Any, ...]] = {
    "act_fn": tuple(ACT2CLS),
    "down_block_types": ("DownEncoderBlock2D",),
    "in_channels": (3,),
    "latents_mean": (None,),
    "latents_std": (None,),
    "out_channels": (3,),
    "up_block_types": ("UpDecoderBlock2D",),
}
_SILU = ("silu", "swish")


def read_config(part: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the autoencoder. Raises UserError, naming the key, for a value that is not served."""
    return read_arguments(part, AutoencoderKL, config, _SERVED)


class LatentDecoder(nn.Module):
    """latent_sample [1, c, h, w], already divided by the scaling factor, to sample [1, 3, H, W] in -1..1, float32."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        vae = AutoencoderKL(**config)
        self.post_quant_conv, self.decoder = vae.post_quant_conv, vae.decoder

    def forward(self, latent_sample: Tensor) -> tuple[Tensor]:
        z = latent_sample if self.post_quant_conv is None else self.post_quant_conv(latent_sample)
        return (self.decoder(z),)


class LatentEncoder(nn.Module):
    """sample [1, 3, H, W] in -1..1 to latent_parameters [1, 2c, h, w]: mean, then log of the variance, float32."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        vae = AutoencoderKL(**config)
        self.encoder, self.quant_conv = vae.encoder, vae.quant_conv

    def forward(self, sample: Tensor) -> tuple[Tensor]:
        moments = self.encoder(sample)
        return (moments if self.quant_conv is None else self.quant_conv(moments),)


def modern_names(part: str, stored: Mapping[str, TensorRef]) -> dict[str, TensorRef]:
    """Files from before diffusers 0.18 call the attention's layers `query, key, value, proj_attn`, and files closer to
    the original code (CompVis/latent-diffusion) store them as 1x1 convolutions. Raises UserError where they are in
    shards, of which diffusers leaves them out.
    """
    modern = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
    names = {}
    for name in stored:
        parent, _, leaf = name.rpartition(".")
        block, _, layer = parent.rpartition(".")
        if ".attentions." in name and layer in modern:
            names[name] = f"{block}.{modern[layer]}.{leaf}"
    if names and len({ref.file for ref in stored.values()}) > 1:
        raise UserError(
            f"{part}: its shards hold names from before diffusers 0.18 ({min(names)}), which diffusers translates in a "
            "single file only: save the model again"
        )
    renamed = rename(stored, names, part)
    return {name: without_kernel(ref) if ".attentions." in name else ref for name, ref in renamed.items()}


def decoder_sites(config: Mapping[str, Any]) -> dict[str, int]:
    """The decoder has one residual block more in each block than the configuration says."""
    return _sites(config, config["layers_per_block"] + 1)


def encoder_sites(config: Mapping[str, Any]) -> dict[str, int]:
    """As many residual blocks in each block as the configuration says."""
    return _sites(config, config["layers_per_block"])


def _sites(config: Mapping[str, Any], layers: int) -> dict[str, int]:
    """In the middle two more residual blocks and an attention with a norm of its own; at the end a norm and a SiLU."""
    resnets = len(config["block_out_channels"]) * layers + 2
    attention = int(config["mid_block_add_attention"])
    silu = 2 * resnets * (config["act_fn"] in _SILU) + 1
    counts = {"attention": attention, "group_norm": 2 * resnets + attention + 1, "silu": silu}
    return {kind: count for kind, count in counts.items() if count}
