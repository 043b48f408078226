"""The UNet with cross-attention (https://arxiv.org/abs/2112.10752, section 3.3) as a graph: one call of the sampler.

One of the parts that families are made of. SDXL's additional conditions (`text_embeds`, `time_ids`) would be further
arguments of a second module beside `Denoiser`, and its `addition_embed_type` one more served value.
"""

from collections.abc import Mapping
from typing import Any

from diffusers import UNet2DConditionModel
from diffusers.models.activations import ACT2CLS
from torch import Tensor, nn

from pocketdiffusion.export.arguments import read_arguments

# The values of a configuration that are served; what is not named here is free.
_SERVED: Mapping[str, tuple[Any, ...]] = {
    "act_fn": tuple(ACT2CLS),
    "addition_embed_type": (None,),
    "attention_type": ("default",),
    "class_embed_type": (None,),
    "class_embeddings_concat": (False,),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "dual_cross_attention": (False,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn", "UNetMidBlock2D", None),
    "num_attention_heads": (None,),
    "num_class_embeds": (None,),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "time_cond_proj_dim": (None,),
    "time_embedding_type": ("positional",),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}
_SILU = ("silu", "swish")


def read_config(part: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the UNet. Raises UserError, naming the key, for a value that is not served."""
    return read_arguments(part, UNet2DConditionModel, config, _SERVED)


class Denoiser(nn.Module):
    """sample [1, c, h, w], timestep [1], encoder_hidden_states [1, tokens, d] to out_sample [1, c, h, w], float32.

    The UNet's tensors have the prefix `unet.`.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.unet = UNet2DConditionModel(**config)

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> tuple[Tensor]:
        output: tuple[Tensor] = self.unet(sample, timestep, encoder_hidden_states, return_dict=False)
        return output


def sites(config: Mapping[str, Any]) -> dict[str, int]:
    """By operator. GELU is that of GEGLU; SiLU acts twice in each residual block, and on the time embedding it adds."""
    blocks = len(config["down_block_types"])
    layers, depth = (_each(config[key], blocks) for key in ("layers_per_block", "transformer_layers_per_block"))
    up_depth = config["reverse_transformer_layers_per_block"] or depth[::-1]
    resnets = sum(layers) + sum(layers) + blocks
    depths: list[int] = []  # of each transformer: how many blocks of two attentions and one GEGLU
    for kind, count, deep in zip(config["down_block_types"], layers, depth, strict=True):
        depths += _each(deep, count) if kind.startswith("CrossAttn") else []
    for kind, count, deep in zip(config["up_block_types"], layers[::-1], up_depth, strict=True):
        depths += _each(deep, count + 1) if kind.startswith("CrossAttn") else []
    if config["mid_block_type"] == "UNetMidBlock2DCrossAttn":
        resnets += 2
        depths += _each(depth[-1], 1)
    elif config["mid_block_type"] == "UNetMidBlock2D":
        resnets += 1
    silu = (3 * resnets + 2) * (config["act_fn"] in _SILU)
    silu += sum(config[key] in _SILU for key in ("time_embedding_act_fn", "timestep_post_act"))
    counts = {
        "attention": 2 * sum(depths),
        "gelu": sum(depths),
        "layer_norm": 3 * sum(depths),
        "group_norm": 2 * resnets + len(depths) + 1,
        "silu": silu,
    }
    return {kind: count for kind, count in counts.items() if count}


def _each(value: Any, count: int) -> list[Any]:
    """One value per block or layer, of a configuration that gives one for all or a list."""
    return [value] * count if isinstance(value, int) else list(value)[:count]
