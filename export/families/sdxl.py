"""Stable Diffusion XL (https://arxiv.org/abs/2307.01952): two text encoders, whose states are concatenated, and a UNet
that also reads an embedding of the complete prompt and the size of the picture.

The refiner, which has one text encoder and also reads an aesthetic score, is another model.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn

from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.families.parts import autoencoder_kl, clip_states, clip_text, unet2d, unet2d_split
from pocketdiffusion.export.families.parts.graph_call import GraphCall
from pocketdiffusion.export.families.parts.latent_size import latent_size
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.program import Call, Concat, Program, Stage

PIPELINES = ("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline")
PIPELINE = "StableDiffusionXLPipeline"  # the class that draws the reference
CLASSES = {
    "text_encoder": ("CLIPTextModel",),
    "text_encoder_2": ("CLIPTextModelWithProjection",),
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
}
TOKENIZERS = ("tokenizer", "tokenizer_2")
FORCE_ZEROS = "force_zeros_for_empty_prompt"  # true if model_index.json does not state it, as in diffusers
MULTIPLE = 8  # pixels: width and height must be multiples of it in the pipeline, whatever the VAE's scale


def components(checkpoint: Checkpoint, width: int | None, height: int | None) -> list[Component]:
    """Return text_encoder, text_encoder_2, unet, vae_decoder, vae_encoder. `width` and `height` are in pixels, None for
    the model's own size."""
    configs, tensors, allowed = checkpoint.configs, checkpoint.tensors, checkpoint.allow_unexpected
    _check_served(checkpoint)
    first = clip_states.read_config("text_encoder", configs["text_encoder"])
    second = clip_states.read_config("text_encoder_2", configs["text_encoder_2"])
    unet = unet2d.read_config("unet", configs["unet"], added="text_time")
    vae = autoencoder_kl.read_config("vae", configs["vae"])

    tokens = clip_text.prompt_length(checkpoint, "tokenizer", "text_encoder", first)
    if (other := clip_text.prompt_length(checkpoint, "tokenizer_2", "text_encoder_2", second)) != tokens:
        raise UserError(
            f"{checkpoint.tokenizers['tokenizer_2'] / 'tokenizer_config.json'}: model_max_length {other} is not the "
            f"{tokens} of tokenizer, and the states of both encoders are concatenated: set it to {tokens}"
        )
    encoders = [
        clip_states.state_component("text_encoder", first, tensors["text_encoder"], tokens, allowed),
        clip_states.projected_component("text_encoder_2", second, tensors["text_encoder_2"], tokens, allowed),
    ]
    _check_added(unet, second.projection_dim)
    build = partial(unet2d.TextTimeDenoiser, unet)
    weights = unet2d.denoiser_tensors(build, tensors["unet"], allowed)
    states = first.hidden_size + second.hidden_size
    unet2d.check_fit(states, unet, vae["latent_channels"])
    factor = autoencoder_kl.scale(vae)
    w, h = latent_size(configs["unet"]["sample_size"], factor, width, height)
    picture = h * factor, w * factor
    if any(pixels % MULTIPLE for pixels in picture):
        raise UserError(
            f"pictures of {picture[1]}x{picture[0]} do not fit this model: both must be multiples of {MULTIPLE}"
        )
    spec = unet2d.text_time_spec(unet, (1, tokens, states), (h, w), second.projection_dim)
    example = partial(unet2d.text_time_example, spec, picture)
    denoiser = Component(spec, build, weights, example, unet2d.sites(unet), split=unet2d_split.split)
    return [*encoders, denoiser, *autoencoder_kl.components("vae", vae, tensors["vae"], (h, w), allowed)]


def _check_served(checkpoint: Checkpoint) -> None:
    """Check that the checkpoint is not SDXL's refiner. Raise UserError if it is."""
    if checkpoint.model_index.get("requires_aesthetics_score"):
        raise UserError(
            f"{checkpoint.name} is SDXL's refiner (requires_aesthetics_score in model_index.json), which is not "
            f"supported; its base model is"
        )


def _check_added(unet: Mapping[str, Any], embeds: int) -> None:
    """Check that the input width of the UNet's embedding of prompt and size fits both. Raise UserError if it does
    not."""
    time, found = unet["addition_time_embed_dim"], unet["projection_class_embeddings_input_dim"]
    if not isinstance(time, int) or found != 6 * time + embeds:
        raise UserError(
            f"unet: projection_class_embeddings_input_dim {found} in config.json does not fit 6 times "
            f"addition_time_embed_dim {time} and the {embeds} of text_encoder_2's projection_dim: correct it"
        )


def calls(pipeline: Any) -> dict[str, GraphCall]:
    """Return the modules whose calls in diffusers' pipeline are recorded, by graph."""
    return {
        "text_encoder": clip_text.call(
            pipeline.text_encoder, lambda result: {"hidden_states": result.hidden_states[-2]}
        ),
        "text_encoder_2": clip_text.call(
            pipeline.text_encoder_2,
            lambda result: {"hidden_states": result.hidden_states[-2], "text_embeds": result.text_embeds},
        ),
        "unet": unet2d.call(pipeline.unet),
        **autoencoder_kl.calls(pipeline.vae),
    }


def program(checkpoint: Checkpoint, specs: Mapping[str, GraphSpec]) -> Program:
    """Return the program: both text encoders run for each prompt, the UNet for each half of each step, then the
    decoder; the encoder for image to image. An absent negative prompt has states of zeros, unless model_index.json says
    otherwise."""
    first = Call(graph="text_encoder", inputs={"input_ids": "tokens/1"}, outputs={"hidden_states": "states/1"})
    second = Call(
        graph="text_encoder_2",
        inputs={"input_ids": "tokens/2"},
        outputs={"hidden_states": "states/2", "text_embeds": "pooled"},
    )
    unet = Call(
        graph="unet",
        inputs={
            "sample": "scaled_latents",
            "timestep": "timestep",
            "encoder_hidden_states": Concat(concat=("states/1", "states/2"), axis=2),
            "text_embeds": "pooled",
            "time_ids": "time_ids",
        },
        outputs={"out_sample": "model_output"},
    )
    encoder = Call(graph="vae_encoder", inputs={"sample": "picture"}, outputs={"latent_parameters": "posterior"})
    decoder = Call(graph="vae_decoder", inputs={"latent_sample": "decoder_latents"}, outputs={"sample": "decoded"})
    return Program(
        guidance="classifier_free",
        absent_negative="zeros" if checkpoint.model_index.get(FORCE_ZEROS, True) else "encode_empty",
        draws=("posterior", "start", "steps"),
        stages=(
            Stage(stage="encode_prompt", calls=(first, second)),
            Stage(stage="encode_image", calls=(encoder,)),
            Stage(stage="denoise", calls=(unet,)),
            Stage(stage="decode", calls=(decoder,)),
        ),
    )


def modules(pipeline: Any) -> dict[str, dict[str, nn.Module]]:
    """Return diffusers' modules that have the weights of each component: {component: {first part of the weight's name:
    module}}."""
    first, second = pipeline.text_encoder, pipeline.text_encoder_2
    return {
        "text_encoder": {"text_model": getattr(first, "text_model", first)},
        "text_encoder_2": {"text_model": second.text_model, "text_projection": second.text_projection},
        "unet": {"unet": pipeline.unet},
        **autoencoder_kl.modules(pipeline.vae),
    }


def scheduler_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scheduler's settings unchanged: this pipeline corrects none."""
    return dict(config)
