"""Components equal the modules of diffusers and transformers, bit for bit, whatever legal configuration made them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from support.family_cases import (
    CASES,
    CROSS,
    PLAIN,
    UNET_FILE,
    UP_CROSS,
    UP_PLAIN,
    VAE_FILE,
    Model,
    edit_json,
    parts_of,
    refusal,
)
from support.traced_parts import count_sites
from torch import Tensor
from transformers import CLIPTextModelWithProjection

from pocketdiffusion.export.component import Component, load_module
from pocketdiffusion.export.families.parts import autoencoder_kl, unet2d


def original_outputs(model: Model, name: str, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
    if name == "text_encoder":
        output = model.text_encoder(inputs["input_ids"])
        return output.last_hidden_state, output.pooler_output
    if name == "unet":
        return (model.unet(**inputs).sample,)
    if name == "vae_decoder":
        return (model.vae.decode(inputs["latent_sample"]).sample,)
    return (model.vae.encode(inputs["sample"]).latent_dist.parameters,)


def check(model: Model, parts: dict[str, Component]) -> None:
    """Each component against its original: outputs, shapes, sites."""
    assert list(parts) == ["text_encoder", "unet", "vae_decoder", "vae_encoder"]
    for name, part in parts.items():
        module, inputs = load_module(part), part.example(1)
        assert {t.name: (t.shape, t.dtype) for t in part.spec.inputs} == {
            key: (tuple(value.shape), str(value.dtype).removeprefix("torch.")) for key, value in inputs.items()
        }
        outputs = module(*inputs.values())
        expected = original_outputs(model, name, inputs)
        assert [t.shape for t in part.spec.outputs] == [tuple(output.shape) for output in outputs]
        for output, reference in zip(outputs, expected, strict=True):
            assert output.dtype == torch.float32 and output.isfinite().all() and output.std() > 0
            assert torch.equal(output, reference)
        assert set(part.weights) == set(module.state_dict())
        assert dict(part.sites) == count_sites(module, inputs)


@pytest.mark.parametrize("name", CASES)
def test_components_equal_the_originals(name: str, make: Callable[..., Model]) -> None:
    case = CASES[name]
    model = make(case)
    sizes = {} if case.size is None else {"width": case.size[0], "height": case.size[1]}
    check(model, parts_of(model.folder, **sizes))


def test_specs_have_the_names_of_optimum(tiny_checkpoint: Path) -> None:
    parts = parts_of(tiny_checkpoint)
    shapes = {
        name: ({t.name: t.shape for t in part.spec.inputs}, {t.name: t.shape for t in part.spec.outputs})
        for name, part in parts.items()
    }
    assert shapes == {
        "text_encoder": ({"input_ids": (1, 77)}, {"last_hidden_state": (1, 77, 32), "pooler_output": (1, 32)}),
        "unet": (
            {"sample": (1, 4, 16, 16), "timestep": (1,), "encoder_hidden_states": (1, 77, 32)},
            {"out_sample": (1, 4, 16, 16)},
        ),
        "vae_decoder": ({"latent_sample": (1, 4, 16, 16)}, {"sample": (1, 3, 32, 32)}),
        "vae_encoder": ({"sample": (1, 3, 32, 32)}, {"latent_parameters": (1, 8, 16, 16)}),
    }
    dtypes = {t.name: t.dtype for part in parts.values() for t in (*part.spec.inputs, *part.spec.outputs)}
    assert dtypes.pop("input_ids") == "int32" and set(dtypes.values()) == {"float32"}


def test_width_and_height_are_not_confused(make: Callable[..., Model]) -> None:
    folder = make(CASES["sample size not square"]).folder
    parts = parts_of(folder)
    assert parts["unet"].spec.inputs[0].shape == (1, 4, 8, 12)  # sample_size is height, width
    assert parts["vae_decoder"].spec.outputs[0].shape == (1, 3, 16, 24)
    parts = parts_of(folder, width=32, height=24)
    assert parts["unet"].spec.inputs[0].shape == (1, 4, 12, 16)


@pytest.mark.parametrize(
    ("version", "size"),
    [("0.6.0", 8), ("0.8.1", 63), ("0.9.0.dev0", 8), ("0.9.0", 8), ("0.6.0", 65), ("0.6.0", [8, 12]), (None, 8)],
)
def test_the_size_of_an_old_unet_is_the_one_that_diffusers_takes(
    version: str | None, size: int | list[int], make: Callable[..., Model]
) -> None:
    folder = make(CASES["small"]).folder
    edit_json(folder / "unet/config.json", sample_size=size, _diffusers_version=version)
    if version is None:
        config = json.loads((folder / "unet/config.json").read_text())
        del config["_diffusers_version"]
        (folder / "unet/config.json").write_text(json.dumps(config))
    pipeline = StableDiffusionPipeline(
        unet=UNet2DConditionModel.from_pretrained(folder / "unet"),
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        text_encoder=None,
        tokenizer=None,
        scheduler=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    own = pipeline.unet.config.sample_size
    expected = tuple(own) if isinstance(own, list) else (own, own)
    assert parts_of(folder)["unet"].spec.inputs[0].shape[2:] == expected
    assert parts_of(folder, width=16, height=16)["unet"].spec.inputs[0].shape[2:] == (8, 8)


def test_a_version_that_is_none_is_told(make: Callable[..., Model]) -> None:
    folder = make(CASES["small"]).folder
    edit_json(folder / "unet/config.json", _diffusers_version="new")
    assert "_diffusers_version 'new'" in refusal(folder)


def test_examples_differ_by_seed_and_repeat(tiny_checkpoint: Path) -> None:
    for part in parts_of(tiny_checkpoint).values():
        first, again, other = part.example(1), part.example(1), part.example(2)
        for name in first:
            assert torch.equal(first[name], again[name]) and not torch.equal(first[name], other[name])


# Stable Diffusion 1.5's own configurations.

SD15_UNET = {
    "block_out_channels": [320, 640, 1280, 1280],
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
    "down_block_types": [CROSS, CROSS, CROSS, PLAIN],
    "up_block_types": [UP_PLAIN, UP_CROSS, UP_CROSS, UP_CROSS],
    "layers_per_block": 2,
    "sample_size": 64,
}
SD15_VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "sample_size": 512,
}


def test_sites_of_stable_diffusion_15() -> None:
    unet = unet2d.sites(unet2d.read_config("unet", SD15_UNET))
    norms = {"layer_norm": 48, "group_norm": 61}
    assert unet == {"attention": 32, "gelu": 16, "silu": 68, "sinusoidal_embedding": 1, **norms}
    vae = autoencoder_kl.read_config("vae", SD15_VAE)
    assert autoencoder_kl.decoder_sites(vae) == {"attention": 1, "group_norm": 30, "silu": 29}
    assert autoencoder_kl.encoder_sites(vae) == {"attention": 1, "group_norm": 22, "silu": 21}


def test_names_and_shapes_of_old_files_are_understood(make: Callable[..., Model]) -> None:
    """What SD1.5's files hold: `text_model.`, position_ids, `query` for `to_q`, and weights of 1x1 convolutions."""
    model = make(CASES["text encoder of old files"])
    text_file = model.folder / "text_encoder/model.safetensors"
    text = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in load_file(text_file).items()}
    save_file(text | {"text_model.embeddings.position_ids": torch.arange(77)[None]}, text_file)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    vae = {}
    for name, tensor in load_file(model.folder / VAE_FILE).items():
        for new, former in old.items():
            if f".attentions.0.{new}." in name:
                name = name.replace(new, former)
                tensor = tensor[:, :, None, None] if tensor.ndim == 2 and former in ("query", "proj_attn") else tensor
        vae[name] = tensor
    assert "decoder.mid_block.attentions.0.proj_attn.weight" in vae
    save_file(vae, model.folder / VAE_FILE)
    check(model, parts_of(model.folder))


def test_old_names_in_shards_are_refused(make: Callable[..., Model]) -> None:
    """diffusers translates them in a single file only, and leaves the weights of these layers as they come."""
    model = make(CASES["small"])
    stored = load_file(model.folder / VAE_FILE)
    old = {name.replace(".to_q.", ".query."): tensor for name, tensor in stored.items()}
    placed = {name: f"{number % 2}.safetensors" for number, name in enumerate(sorted(old))}
    for shard in sorted(set(placed.values())):
        save_file({name: old[name] for name in old if placed[name] == shard}, model.folder / "vae" / shard)
    index = json.dumps({"metadata": {}, "weight_map": placed})
    (model.folder / f"{VAE_FILE}.index.json").write_text(index)
    assert "its shards have names from before diffusers 0.18" in refusal(model.folder)


def test_text_encoder_without_the_prefix_is_understood(make: Callable[..., Model]) -> None:
    model = make(CASES["small"])
    file = model.folder / "text_encoder/model.safetensors"
    save_file({name.removeprefix("text_model."): tensor for name, tensor in load_file(file).items()}, file)
    check(model, parts_of(model.folder))


def test_text_encoder_with_projection_gives_the_same_states(make: Callable[..., Model]) -> None:
    """Where its file has one; diffusers' pipeline cannot draw with the class that gives it back."""
    model = make(CASES["small"], CLIPTextModelWithProjection)
    index = model.folder / "model_index.json"
    edit_json(index, text_encoder=["transformers", "CLIPTextModelWithProjection"])
    assert "text_encoder is a CLIPTextModelWithProjection, which is not supported" in refusal(model.folder)
    edit_json(index, text_encoder=["transformers", "CLIPTextModel"])
    assert "text_projection.weight" in load_file(model.folder / "text_encoder/model.safetensors")
    check(replace(model, text_encoder=model.text_encoder.text_model), parts_of(model.folder))


def test_old_and_new_name_of_one_tensor_are_refused(make: Callable[..., Model]) -> None:
    model = make(CASES["small"])
    stored = load_file(model.folder / VAE_FILE)
    stored["decoder.mid_block.attentions.0.query.weight"] = stored["decoder.mid_block.attentions.0.to_q.weight"].clone()
    save_file(stored, model.folder / VAE_FILE)
    assert "1 stored under an old and a new name: decoder.mid_block.attentions.0.to_q.weight" in refusal(model.folder)


def test_half_precision_files_are_read_as_float32(make: Callable[..., Model]) -> None:
    model = make(CASES["small"])
    for module in (model.text_encoder, model.unet, model.vae):
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.data = tensor.data.half().float() if tensor.is_floating_point() else tensor.data
    for file in ("text_encoder/model.safetensors", UNET_FILE, VAE_FILE):
        stored = load_file(model.folder / file)
        save_file({name: tensor.half() for name, tensor in stored.items()}, model.folder / file)
    check(model, parts_of(model.folder))
