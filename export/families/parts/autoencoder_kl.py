"""The KL autoencoder (https://arxiv.org/abs/2112.10752, section 3.1) as two graphs: latents to picture, and back.

Families combine this part with others.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from diffusers import AutoencoderKL
from diffusers.models.activations import ACT2CLS
from torch import Tensor, nn

from pocketdiffusion.export.arguments import read_arguments, tensor_shapes
from pocketdiffusion.export.checkpoints.safetensors_header import match_tensors, rename, without_kernel
from pocketdiffusion.export.checkpoints.tensor import LazyTensor, places_of
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.families.parts.examples import noise
from pocketdiffusion.export.families.parts.graph_call import GraphCall
from pocketdiffusion.export.tile_size import TileSize, choose_tiling
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec

# The supported values of a configuration's fields; fields that are not named here may have any value.
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
    """Return the arguments of the autoencoder. Raise UserError, naming the key, for a value that is not supported."""
    return read_arguments(part, AutoencoderKL, config, _SERVED)


class LatentDecoder(nn.Module):
    """The VAE decoder as a graph: latent_sample [1, c, h, w] (already divided by scaling_factor) -> sample [1, 3, H, W]
    in -1..1, float32."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        vae = AutoencoderKL(**config)
        self.post_quant_conv, self.decoder = vae.post_quant_conv, vae.decoder

    def forward(self, latent_sample: Tensor) -> tuple[Tensor]:
        z = latent_sample if self.post_quant_conv is None else self.post_quant_conv(latent_sample)
        return (self.decoder(z),)


class LatentEncoder(nn.Module):
    """The VAE encoder as a graph: sample [1, 3, H, W] in -1..1 -> latent_parameters [1, 2c, h, w]: means, then log
    variances, float32."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        vae = AutoencoderKL(**config)
        self.encoder, self.quant_conv = vae.encoder, vae.quant_conv

    def forward(self, sample: Tensor) -> tuple[Tensor]:
        moments = self.encoder(sample)
        return (moments if self.quant_conv is None else self.quant_conv(moments),)


def modern_names(part: str, stored: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """Return the tensors under today's names and shapes.

    Files from before diffusers 0.18 call the attention's layers `query, key, value, proj_attn`, and files closer to the
    original code (CompVis/latent-diffusion) store them as 1x1 convolutions. Raise UserError if such files are sharded:
    diffusers then ignores those tensors.
    """
    modern = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
    names = {}
    for name in stored:
        parent, _, leaf = name.rpartition(".")
        block, _, layer = parent.rpartition(".")
        if ".attentions." in name and layer in modern:
            names[name] = f"{block}.{modern[layer]}.{leaf}"
    if names and len({file for file, _ in places_of(stored.values())}) > 1:
        raise UserError(
            f"{part}: its shards have names from before diffusers 0.18 ({min(names)}), which diffusers translates only "
            "in a single file: save the model again"
        )
    renamed = rename(stored, names, part)
    return {name: without_kernel(ref) if ".attentions." in name else ref for name, ref in renamed.items()}


def decoder_sites(config: Mapping[str, Any]) -> dict[str, int]:
    """Return {operator: sites} of the decoder: each block has one residual block more than the configuration states."""
    return _sites(config, config["layers_per_block"] + 1)


def encoder_sites(config: Mapping[str, Any]) -> dict[str, int]:
    """Return {operator: sites} of the encoder: each block has as many residual blocks as the configuration states."""
    return _sites(config, config["layers_per_block"])


def _sites(config: Mapping[str, Any], layers: int) -> dict[str, int]:
    """Return {operator: sites}. The middle has two more residual blocks, and an attention with its own norm; the end
    has a norm and a SiLU."""
    resnets = len(config["block_out_channels"]) * layers + 2
    attention = int(config["mid_block_add_attention"])
    silu = 2 * resnets * (config["act_fn"] in _SILU) + 1
    counts = {"attention": attention, "group_norm": 2 * resnets + attention + 1, "silu": silu}
    return {kind: count for kind, count in counts.items() if count}


def components(
    part: str,
    config: Mapping[str, Any],
    stored: Mapping[str, LazyTensor],
    size: tuple[int, int],
    allow_unexpected: Sequence[str],
) -> list[Component]:
    """Return vae_decoder and vae_encoder, for latents of `size`, (height, width). `stored` has the names of the file.

    Raise UserError, naming the tensors, if the weights do not fit the configuration.
    """
    build_decoder, build_encoder = partial(LatentDecoder, config), partial(LatentEncoder, config)
    decoder, encoder = tensor_shapes(part, build_decoder), tensor_shapes(part, build_encoder)
    weights = match_tensors(decoder | encoder, modern_names(part, stored), part, allow_unexpected)
    channels, factor = config["latent_channels"], scale(config)
    picture = TensorSpec("sample", (1, 3, size[0] * factor, size[1] * factor), "float32", "the picture, -1 to 1")
    latents = TensorSpec("latent_sample", (1, channels, *size), "float32", "latents divided by the scaling factor")
    moments = TensorSpec("latent_parameters", (1, 2 * channels, *size), "float32", "mean, then log of the variance")

    def make(
        spec: GraphSpec, build: Callable[[], nn.Module], shapes: Mapping[str, Any], found: Mapping[str, int]
    ) -> Component:
        return Component(spec, build, {name: weights[name] for name in shapes}, partial(noise, spec), found)

    decodes = make(GraphSpec("vae_decoder", (latents,), (picture,)), build_decoder, decoder, decoder_sites(config))
    return [
        replace(decodes, tile=tile_decoder),
        make(
            GraphSpec("vae_encoder", (replace(picture, doc="a picture, -1 to 1"),), (moments,)),
            build_encoder,
            encoder,
            encoder_sites(config),
        ),
    ]


def tile_decoder(part: Component, wanted: TileSize) -> Component:
    """Return the decoder for tiles of the `wanted` size. Raise UserError if the size is not possible."""
    (latents,), (picture,) = part.spec.inputs, part.spec.outputs
    _, channels, height, width = (int(size) for size in latents.shape)
    tiling = choose_tiling(height, width, int(picture.shape[2]) // height, wanted)
    rows, columns = tiling.shape
    spec = replace(
        part.spec,
        inputs=(replace(latents, shape=(1, channels, rows, columns), doc=f"a tile of the {latents.doc}"),),
        outputs=(
            replace(
                picture,
                shape=(1, 3, rows * tiling.scale, columns * tiling.scale),
                doc="a tile of the picture, -1 to 1",
            ),
        ),
    )
    return replace(part, spec=spec, example=partial(noise, spec), tile=None, tiling=tiling)


def scale(config: Mapping[str, Any]) -> int:
    """Return the pixels of the picture per latent, along each axis."""
    return int(2 ** (len(config["block_out_channels"]) - 1))


def calls(vae: Any) -> dict[str, GraphCall]:
    """Return the modules whose calls in diffusers' pipelines are recorded: `vae.decode` and `vae.encode` never call the
    VAE itself."""
    return {
        "vae_decoder": GraphCall(
            vae.decoder if vae.post_quant_conv is None else vae.post_quant_conv,
            vae.decoder,
            lambda arguments: {"latent_sample": next(iter(arguments.values()))},
            lambda result: {"sample": result},
        ),
        "vae_encoder": GraphCall(
            vae.encoder,
            vae.encoder if vae.quant_conv is None else vae.quant_conv,
            lambda arguments: {"sample": next(iter(arguments.values()))},
            lambda result: {"latent_parameters": result},
        ),
    }


def modules(vae: Any) -> dict[str, dict[str, nn.Module]]:
    """Return the modules of diffusers' VAE that have the weights of the two components, by the first part of the
    weight's name."""
    return {
        "vae_decoder": {"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv},
        "vae_encoder": {"encoder": vae.encoder, "quant_conv": vae.quant_conv},
    }
