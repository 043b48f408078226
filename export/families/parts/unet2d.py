"""The UNet with cross-attention (https://arxiv.org/abs/2112.10752, section 3.3) as a graph: one call of the denoiser.

Families combine this part with others: `Denoiser` reads one state per token, `TextTimeDenoiser` also an embedding of
the complete prompt and the picture's size (https://arxiv.org/abs/2307.01952, section 2.2).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.activations import ACT2CLS
from torch import Tensor, nn

from pocketdiffusion.export.arguments import read_arguments, tensor_shapes
from pocketdiffusion.export.checkpoints.safetensors_header import match_tensors
from pocketdiffusion.export.checkpoints.tensor import LazyTensor
from pocketdiffusion.export.families.parts.examples import noise
from pocketdiffusion.export.families.parts.graph_call import GraphCall, Tensors
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec

# The supported values of a configuration's fields; fields that are not named here may have any value.
_SERVED: Mapping[str, tuple[Any, ...]] = {
    "act_fn": tuple(ACT2CLS),
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


def read_config(part: str, config: Mapping[str, Any], added: str | None = None) -> dict[str, Any]:
    """Return the arguments of a UNet whose `addition_embed_type` is `added`: None, or "text_time".

    Raise UserError, naming the key, for a value that is not supported.
    """
    return read_arguments(part, UNet2DConditionModel, config, {**_SERVED, "addition_embed_type": (added,)})


class Denoiser(nn.Module):
    """The UNet as a graph: sample [1, c, h, w], timestep [1], encoder_hidden_states [1, tokens, d] -> out_sample
    [1, c, h, w], all float32.

    The UNet's tensors have the prefix `unet.`.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.unet = UNet2DConditionModel(**config)

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> tuple[Tensor]:
        output: tuple[Tensor] = self.unet(sample, timestep, encoder_hidden_states, return_dict=False)
        return output


class TextTimeDenoiser(nn.Module):
    """`Denoiser` with two more inputs, float32: text_embeds [1, e] and time_ids [1, 6], which are height, width, top,
    left, height, width, in pixels, of the original, its crop and the picture."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.unet = UNet2DConditionModel(**config)

    def forward(
        self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, text_embeds: Tensor, time_ids: Tensor
    ) -> tuple[Tensor]:
        output: tuple[Tensor] = self.unet(
            sample,
            timestep,
            encoder_hidden_states,
            added_cond_kwargs={"text_embeds": text_embeds, "time_ids": time_ids},
            return_dict=False,
        )
        return output


def denoiser_tensors(
    build: Callable[[], nn.Module], stored: Mapping[str, LazyTensor], allow_unexpected: Sequence[str]
) -> dict[str, LazyTensor]:
    """Return the weights of `Denoiser` or `TextTimeDenoiser`. `stored` has the names of the file.

    Raise UserError, naming the tensors, if the weights do not fit the configuration.
    """
    named = {f"unet.{name}": ref for name, ref in stored.items()}
    return match_tensors(tensor_shapes("unet", build), named, "unet", allow_unexpected)


def spec(config: Mapping[str, Any], states: tuple[int, int, int], size: tuple[int, int]) -> GraphSpec:
    """Return the specification of `Denoiser`, for prompt states of the shape `states` and latents of `size`, (height,
    width)."""
    return GraphSpec(
        "unet",
        (
            TensorSpec("sample", (1, config["in_channels"], *size), "float32", "noisy latents, scaled by the sampler"),
            TensorSpec("timestep", (1,), "float32", "from 0, clean, to the number of training steps, noise"),
            TensorSpec("encoder_hidden_states", states, "float32", "the text's states, one for each token"),
        ),
        (TensorSpec("out_sample", (1, config["out_channels"], *size), "float32", "epsilon or v, as trained"),),
    )


def text_time_spec(
    config: Mapping[str, Any], states: tuple[int, int, int], size: tuple[int, int], embeds: int
) -> GraphSpec:
    """Return the specification of `TextTimeDenoiser`: `spec`, and the prompt's embedding of `embeds` channels."""
    plain = spec(config, states, size)
    pooled = TensorSpec("text_embeds", (1, embeds), "float32", "the embedding of the whole text")
    sizes = TensorSpec("time_ids", (1, 6), "float32", "height, width, top, left, height, width, in pixels")
    return GraphSpec(plain.name, (*plain.inputs, pooled, sizes), plain.outputs)


def text_time_example(spec: GraphSpec, picture: tuple[int, int], seed: int) -> Tensors:
    """Return noise, and the time ids of a picture of size `picture`, (height, width), that was not cropped."""
    return {**noise(spec, seed), "time_ids": torch.tensor([[*picture, 0, 0, *picture]], dtype=torch.float32)}


def call(unet: nn.Module) -> GraphCall:
    """Return how calls of diffusers' UNet are recorded, with the entries of `added_cond_kwargs` as inputs if there are
    any."""

    def inputs(arguments: Mapping[str, Any]) -> Tensors:
        added = arguments.get("added_cond_kwargs") or {}
        return {
            "sample": arguments["sample"],
            "timestep": arguments["timestep"].to(torch.float32),
            "encoder_hidden_states": arguments["encoder_hidden_states"],
            **added,
        }

    return GraphCall(unet, unet, inputs, lambda result: {"out_sample": result[0]})


def check_fit(states: int, unet: Mapping[str, Any], latent: int) -> None:
    """Check the UNet's channels against prompt states of `states` channels and latents of `latent`. Raise UserError if
    they do not fit."""
    widths = unet["cross_attention_dim"]
    for width in widths if isinstance(widths, list | tuple) else [widths]:
        if width != states:
            raise UserError(f"unet: cross_attention_dim {width} does not fit the text encoder's hidden_size {states}")
    if unet["in_channels"] not in (latent, 2 * latent + 1) or unet["out_channels"] != latent:
        raise UserError(
            f"unet: in_channels {unet['in_channels']} and out_channels {unet['out_channels']} do not fit the vae: its "
            f"{latent} latent_channels need {latent} and {latent}, or for inpainting {2 * latent + 1} and {latent}"
        )


def sites(config: Mapping[str, Any]) -> dict[str, int]:
    """Return {operator: sites}. GELU occurs in GEGLU; SiLU acts twice in each residual block, and on the time embedding
    that the block adds."""
    blocks = len(config["down_block_types"])
    layers, depth = (_each(config[key], blocks) for key in ("layers_per_block", "transformer_layers_per_block"))
    up_depth = config["reverse_transformer_layers_per_block"] or depth[::-1]
    resnets = sum(layers) + sum(layers) + blocks
    depths: list[int] = []  # of each transformer: the number of blocks, each of two attentions and one GEGLU
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
    silu += config["addition_embed_type"] == "text_time"  # in the embedding that is added to the time embedding
    counts = {
        "attention": 2 * sum(depths),
        "gelu": sum(depths),
        "layer_norm": 3 * sum(depths),
        "group_norm": 2 * resnets + len(depths) + 1,
        "silu": silu,
        "sinusoidal_embedding": 1 + (config["addition_embed_type"] == "text_time"),  # of the timestep, and of sizes
    }
    return {kind: count for kind, count in counts.items() if count}


def _each(value: Any, count: int) -> list[Any]:
    """Return a list of `count` values, one per block or layer, of a field that is one value for all or a list."""
    return [value] * count if isinstance(value, int) else list(value)[:count]
