"""Stable Diffusion 1 and 2: one CLIP text encoder, a UNet with cross-attention, a KL autoencoder.

The graphs have the names and shapes of optimum's `ORTDiffusionPipeline`. A v-prediction model differs only in its
scheduler's configuration. A UNet for inpainting differs in `in_channels`: latents, mask, masked latents.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from packaging.version import InvalidVersion, Version
from torch import nn

from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.families.parts import autoencoder_kl, clip_text, unet2d, unet2d_split
from pocketdiffusion.export.families.parts.examples import noise
from pocketdiffusion.export.families.parts.graph_call import GraphCall
from pocketdiffusion.export.families.parts.latent_size import latent_size
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.program import Call, Program, Stage

PIPELINES = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline")
PIPELINE = "StableDiffusionPipeline"  # the class that draws the reference
CLASSES = {"text_encoder": ("CLIPTextModel",), "unet": ("UNet2DConditionModel",), "vae": ("AutoencoderKL",)}
TOKENIZERS = ("tokenizer",)


def components(checkpoint: Checkpoint, width: int | None, height: int | None) -> list[Component]:
    """Return text_encoder, unet, vae_decoder, vae_encoder. `width` and `height` are in pixels, None for the model's own
    size."""
    configs, tensors, allowed = checkpoint.configs, checkpoint.tensors, checkpoint.allow_unexpected
    text = clip_text.read_config("text_encoder", configs["text_encoder"])
    unet = unet2d.read_config("unet", configs["unet"])
    vae = autoencoder_kl.read_config("vae", configs["vae"])

    tokens = clip_text.prompt_length(checkpoint, "tokenizer", "text_encoder", text)
    encoder = clip_text.component("text_encoder", text, tensors["text_encoder"], tokens, allowed)
    build = partial(unet2d.Denoiser, unet)
    weights = unet2d.denoiser_tensors(build, tensors["unet"], allowed)
    unet2d.check_fit(text.hidden_size, unet, vae["latent_channels"])
    w, h = latent_size(own_size(configs["unet"]), autoencoder_kl.scale(vae), width, height)
    spec = unet2d.spec(unet, (1, tokens, text.hidden_size), (h, w))
    denoiser = Component(spec, build, weights, partial(noise, spec), unet2d.sites(unet), split=unet2d_split.split)
    return [encoder, denoiser, *autoencoder_kl.components("vae", vae, tensors["vae"], (h, w), allowed)]


def calls(pipeline: Any) -> dict[str, GraphCall]:
    """Return the modules whose calls in diffusers' pipeline are recorded, by graph."""
    return {
        "text_encoder": clip_text.call(
            pipeline.text_encoder,
            lambda result: {"last_hidden_state": result.last_hidden_state, "pooler_output": result.pooler_output},
        ),
        "unet": unet2d.call(pipeline.unet),
        **autoencoder_kl.calls(pipeline.vae),
    }


def program(checkpoint: Checkpoint, specs: Mapping[str, GraphSpec]) -> Program:
    """Return the program: the text encoder runs for each prompt, the UNet for each half of each step, then the decoder;
    the encoder for image to image."""
    prompt = {"input_ids": "tokens/1", "attention_mask": "attention_mask/1"}
    names = {tensor.name for tensor in specs["text_encoder"].inputs}
    text = Call(
        graph="text_encoder",
        inputs={name: value for name, value in prompt.items() if name in names},
        outputs={"last_hidden_state": "text_states"},
    )
    unet = Call(
        graph="unet",
        inputs={"sample": "scaled_latents", "timestep": "timestep", "encoder_hidden_states": "text_states"},
        outputs={"out_sample": "model_output"},
    )
    encoder = Call(graph="vae_encoder", inputs={"sample": "picture"}, outputs={"latent_parameters": "posterior"})
    decoder = Call(graph="vae_decoder", inputs={"latent_sample": "decoder_latents"}, outputs={"sample": "decoded"})
    return Program(
        guidance="classifier_free",
        absent_negative="encode_empty",
        draws=("posterior", "start", "steps"),
        stages=(
            Stage(stage="encode_prompt", calls=(text,)),
            Stage(stage="encode_image", calls=(encoder,)),
            Stage(stage="denoise", calls=(unet,)),
            Stage(stage="decode", calls=(decoder,)),
        ),
    )


def modules(pipeline: Any) -> dict[str, dict[str, nn.Module]]:
    """Return diffusers' modules that have the weights of each component: {component: {first part of the weight's name:
    module}}."""
    text_encoder = pipeline.text_encoder
    return {
        "text_encoder": {"text_model": getattr(text_encoder, "text_model", text_encoder)},
        "unet": {"unet": pipeline.unet},
        **autoencoder_kl.modules(pipeline.vae),
    }


def scheduler_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scheduler's settings as diffusers' pipeline corrects them: steps_offset is 1, whatever the file says,
    and samples are not clipped."""
    corrected = {**config, "steps_offset": 1}
    return {**corrected, "clip_sample": False} if config.get("clip_sample") else corrected


def own_size(config: Mapping[str, Any]) -> Any:
    """Return the `sample_size` that diffusers' pipeline uses: 64 instead of a smaller one for a UNet from before
    diffusers 0.9, whose configurations state too small a number (StableDiffusionPipeline.__init__)."""
    own, written = config["sample_size"], config.get("_diffusers_version")
    try:
        old = written is not None and Version(Version(written).base_version) < Version("0.9.0.dev0")
    except (InvalidVersion, TypeError):
        raise UserError(f"unet: _diffusers_version {written!r} in config.json is not a version: correct it") from None
    return 64 if old and isinstance(own, int) and own < 64 else own
