"""Stable Diffusion 1 and 2: one CLIP text encoder, a UNet with cross-attention, a KL autoencoder.

The graphs have the names and shapes of optimum's `ORTDiffusionPipeline`. A v-prediction model differs in its
scheduler's configuration only. A UNet for inpainting differs in `in_channels`: latents, mask, masked latents.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from packaging.version import InvalidVersion, Version
from torch import Tensor, nn
from transformers import CLIPTextConfig

from pocketdiffusion.export.arguments import tensor_shapes
from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.checkpoints.safetensors_header import bind
from pocketdiffusion.export.checkpoints.tokenizer_files import read_tokenizer
from pocketdiffusion.export.component import Component, TensorRef
from pocketdiffusion.export.families.parts import autoencoder_kl, clip_text, unet2d
from pocketdiffusion.export.families.parts.graph_call import GraphCall
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec
from pocketdiffusion.runtime.program import Call, Program, Stage

PIPELINES = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline")
PIPELINE = "StableDiffusionPipeline"  # the one that the reference draws with
CLASSES = {"text_encoder": ("CLIPTextModel",), "unet": ("UNet2DConditionModel",), "vae": ("AutoencoderKL",)}
TOKENIZERS = ("tokenizer",)


def components(checkpoint: Checkpoint, width: int | None, height: int | None) -> list[Component]:
    """text_encoder, unet, vae_decoder, vae_encoder. `width` and `height` in pixels, None for the model's own size."""
    configs, tensors = checkpoint.configs, checkpoint.tensors
    text = clip_text.read_config("text_encoder", configs["text_encoder"])
    unet = unet2d.read_config("unet", configs["unet"])
    vae = autoencoder_kl.read_config("vae", configs["vae"])

    tokens = prompt_length(checkpoint, "tokenizer", "text_encoder", text)

    build_unet = partial(unet2d.Denoiser, unet)
    build_decoder = partial(autoencoder_kl.LatentDecoder, vae)
    build_encoder = partial(autoencoder_kl.LatentEncoder, vae)
    text_shapes = tensor_shapes("text_encoder", partial(clip_text.TextEncoder, text))
    unet_shapes = tensor_shapes("unet", build_unet)
    decoder_shapes, encoder_shapes = tensor_shapes("vae", build_decoder), tensor_shapes("vae", build_encoder)
    texts, vaes = (
        clip_text.modern_names("text_encoder", tensors["text_encoder"]),
        autoencoder_kl.modern_names("vae", tensors["vae"]),
    )
    unets = {f"unet.{name}": ref for name, ref in tensors["unet"].items()}
    allowed = checkpoint.allow_unexpected
    text, text_weights = clip_text.shorten(text, bind(text_shapes, texts, "text_encoder", allowed), tokens)
    unet_weights = bind(unet_shapes, unets, "unet", allowed)
    vae_weights = bind(decoder_shapes | encoder_shapes, vaes, "vae", allowed)

    _check_fit(text.hidden_size, unet, vae)
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    w, h = latent_size(own_size(configs["unet"]), factor, width, height)
    text_spec, unet_spec, decoder_spec, encoder_spec = _specs(
        tokens=tokens,
        masked=clip_text.takes_mask(text),
        states=text.hidden_size,
        sample=unet["in_channels"],
        latent=vae["latent_channels"],
        size=(h, w),
        picture=(h * factor, w * factor),
    )
    return [
        Component(
            text_spec,
            partial(clip_text.TextEncoder, text),
            text_weights,
            partial(clip_text.example, text),
            clip_text.sites(text),
        ),
        _component(unet_spec, build_unet, unet_weights, unet2d.sites(unet)),
        _component(decoder_spec, build_decoder, _of(decoder_shapes, vae_weights), autoencoder_kl.decoder_sites(vae)),
        _component(encoder_spec, build_encoder, _of(encoder_shapes, vae_weights), autoencoder_kl.encoder_sites(vae)),
    ]


def prompt_length(checkpoint: Checkpoint, tokenizer: str, part: str, text: CLIPTextConfig) -> int:
    """How many tokens the pipeline gives the text encoder `part`: its tokenizer's model_max_length.

    Raises UserError where the text encoder has fewer positions, no embedding for one of the tokenizer's ids, or wants
    a mask that the tokenizer does not make.
    """
    entry = checkpoint.model_index[tokenizer]
    found = read_tokenizer(checkpoint.tokenizers[tokenizer], entry[1])
    if found.max_length > text.max_position_embeddings:
        raise UserError(
            f"{found.folder / 'tokenizer_config.json'}: model_max_length {found.max_length} is more than the "
            f"{text.max_position_embeddings} of {part}'s max_position_embeddings: set it to that"
        )
    ids = {number: text for text, number in found.vocab.items()} | {token.id: token.text for token in found.added}
    if (last := max(ids)) >= text.vocab_size:
        raise UserError(
            f"{found.folder}: {ids[last]!r} has id {last}, and the embedding of {part} has {text.vocab_size} rows "
            f"(vocab_size in config.json): enlarge it (resize_token_embeddings), or take the token away"
        )
    if clip_text.takes_mask(text) and not found.gives_mask:
        raise UserError(
            f"{found.folder / 'tokenizer_config.json'}: model_input_names leaves out attention_mask, which "
            f"{part} wants (use_attention_mask in config.json)"
        )
    return found.max_length


def calls(pipeline: Any) -> dict[str, GraphCall]:
    """Where diffusers' pipeline calls each graph. Its `vae.decode` and `vae.encode` never call the VAE itself."""
    text_encoder, unet, vae = pipeline.text_encoder, pipeline.unet, pipeline.vae
    return {
        "text_encoder": GraphCall(
            text_encoder,
            text_encoder,
            _text_inputs,
            lambda result: {"last_hidden_state": result.last_hidden_state, "pooler_output": result.pooler_output},
        ),
        "unet": GraphCall(
            unet,
            unet,
            lambda arguments: {
                "sample": arguments["sample"],
                "timestep": arguments["timestep"].to(torch.float32),
                "encoder_hidden_states": arguments["encoder_hidden_states"],
            },
            lambda result: {"out_sample": result[0]},
        ),
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


def program(checkpoint: Checkpoint, specs: Mapping[str, GraphSpec]) -> Program:
    """The text encoder for each prompt, the UNet for each half of each step, the two halves of the autoencoder."""
    prompt = {"input_ids": "tokens/1", "attention_mask": "attention_mask/1"}
    taken = {tensor.name for tensor in specs["text_encoder"].inputs}
    text = Call(
        graph="text_encoder",
        inputs={name: value for name, value in prompt.items() if name in taken},
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


def _text_inputs(arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """Token ids and, where the pipeline gives one, the mask, in the graph's type."""
    given = {name: arguments.get(name) for name in ("input_ids", "attention_mask")}
    return {name: tensor.to(torch.int32) for name, tensor in given.items() if tensor is not None}


def modules(pipeline: Any) -> dict[str, dict[str, nn.Module]]:
    """Under which names a component's weights lie in the pipeline's modules: by component, by the name's first part."""
    text_encoder, vae = pipeline.text_encoder, pipeline.vae
    return {
        "text_encoder": {"text_model": getattr(text_encoder, "text_model", text_encoder)},
        "unet": {"unet": pipeline.unet},
        "vae_decoder": {"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv},
        "vae_encoder": {"encoder": vae.encoder, "quant_conv": vae.quant_conv},
    }


def scheduler_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The scheduler's settings as diffusers' pipeline mends them: it sets steps_offset to 1, whatever the file says,
    and does not clip samples."""
    mended = {**config, "steps_offset": 1}
    return {**mended, "clip_sample": False} if config.get("clip_sample") else mended


def own_size(config: Mapping[str, Any]) -> Any:
    """The `sample_size` that diffusers' pipeline takes: 64 for a smaller one of a UNet from before diffusers 0.9, whose
    configurations were written with too small a number (StableDiffusionPipeline.__init__)."""
    own, written = config["sample_size"], config.get("_diffusers_version")
    try:
        old = written is not None and Version(Version(written).base_version) < Version("0.9.0.dev0")
    except (InvalidVersion, TypeError):
        raise UserError(f"unet: _diffusers_version {written!r} in config.json is no version: correct it") from None
    return 64 if old and isinstance(own, int) and own < 64 else own


def latent_size(own: Any, factor: int, width: int | None, height: int | None) -> tuple[int, int]:
    """Width and height of the latents, from those of the picture in pixels or the UNet's `sample_size`."""
    own_h, own_w = own if isinstance(own, list | tuple) and len(own) == 2 else (own, own)
    if not all(size is None or isinstance(size, int) for size in (own_h, own_w)):
        raise UserError(f"unet: sample_size {own!r} in config.json is neither a number nor two")
    if (width is None and own_w is None) or (height is None and own_h is None):
        raise UserError("unet: config.json has no sample_size: give the size of the pictures, --size WxH")
    w, h = own_w * factor if width is None else width, own_h * factor if height is None else height
    if w <= 0 or h <= 0 or w % factor or h % factor:
        raise UserError(f"pictures of {w}x{h} do not fit this model: both must be multiples of {factor}")
    return w // factor, h // factor


def _check_fit(states: int, unet: Mapping[str, Any], vae: Mapping[str, Any]) -> None:
    """Raises UserError unless the UNet takes what the text encoder and the autoencoder give."""
    widths = unet["cross_attention_dim"]
    for width in widths if isinstance(widths, list | tuple) else [widths]:
        if width != states:
            raise UserError(f"unet: cross_attention_dim {width} does not fit the text encoder's hidden_size {states}")
    latent = vae["latent_channels"]
    if unet["in_channels"] not in (latent, 2 * latent + 1) or unet["out_channels"] != latent:
        raise UserError(
            f"unet: in_channels {unet['in_channels']} and out_channels {unet['out_channels']} do not fit the vae: its "
            f"{latent} latent_channels want {latent} and {latent}, or for inpainting {2 * latent + 1} and {latent}"
        )


def _specs(
    tokens: int,
    masked: bool,
    states: int,
    sample: int,
    latent: int,
    size: tuple[int, int],
    picture: tuple[int, int],
) -> tuple[GraphSpec, GraphSpec, GraphSpec, GraphSpec]:
    given = [TensorSpec("input_ids", (1, tokens), "int32", "token ids, padded")]
    if masked:
        given.append(TensorSpec("attention_mask", (1, tokens), "int32", "1 for each token, 0 for padding"))
    text = TensorSpec("last_hidden_state", (1, tokens, states), "float32", "a state for each token")
    return (
        GraphSpec(
            "text_encoder",
            tuple(given),
            (text, TensorSpec("pooler_output", (1, states), "float32", "the state at the end of the text")),
        ),
        GraphSpec(
            "unet",
            (
                TensorSpec("sample", (1, sample, *size), "float32", "noisy latents, scaled by the sampler"),
                TensorSpec("timestep", (1,), "float32", "from 0, clean, to the number of training steps, noise"),
                TensorSpec("encoder_hidden_states", text.shape, "float32", "the text encoder's last_hidden_state"),
            ),
            (TensorSpec("out_sample", (1, latent, *size), "float32", "epsilon or v, as the scheduler says"),),
        ),
        GraphSpec(
            "vae_decoder",
            (TensorSpec("latent_sample", (1, latent, *size), "float32", "latents divided by the scaling factor"),),
            (TensorSpec("sample", (1, 3, *picture), "float32", "the picture, -1 to 1"),),
        ),
        GraphSpec(
            "vae_encoder",
            (TensorSpec("sample", (1, 3, *picture), "float32", "a picture, -1 to 1"),),
            (TensorSpec("latent_parameters", (1, 2 * latent, *size), "float32", "mean, then log of the variance"),),
        ),
    )


def _component(
    spec: GraphSpec, build: Callable[[], nn.Module], weights: Mapping[str, TensorRef], sites: Mapping[str, int]
) -> Component:
    return Component(spec, build, weights, partial(_example, spec), sites)


def _of(shapes: Mapping[str, Any], weights: Mapping[str, TensorRef]) -> dict[str, TensorRef]:
    return {name: weights[name] for name in shapes}


def _example(spec: GraphSpec, seed: int) -> dict[str, Tensor]:
    """Normal noise, and a timestep among the usual thousand."""
    generator = torch.Generator().manual_seed(seed)
    inputs = {t.name: torch.randn([int(n) for n in t.shape], generator=generator) for t in spec.inputs}
    if "timestep" in inputs:
        inputs["timestep"] = torch.randint(0, 1000, (1,), generator=generator).float()
    return inputs
