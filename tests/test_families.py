"""Components equal the modules of diffusers and transformers, bit for bit, whatever legal configuration made them."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.activations import GEGLU
from diffusers.models.attention_processor import Attention
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection
from transformers.activations import GELUActivation, QuickGELUActivation
from transformers.models.clip.modeling_clip import CLIPAttention

from pocketdiffusion.export import autoencoder_kl, unet2d
from pocketdiffusion.export.checkpoint import open_checkpoint
from pocketdiffusion.export.component import Component, load_module
from pocketdiffusion.export.families import components
from pocketdiffusion.runtime.errors import UserError

UNET_FILE, VAE_FILE = "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"


@dataclass(frozen=True)
class Model:
    """The originals and the folder that holds them."""

    folder: Path
    text_encoder: Any
    unet: Any
    vae: Any


@dataclass(frozen=True)
class Case:
    """What a configuration changes, against the small one below."""

    unet: Mapping[str, Any] = field(default_factory=dict)
    vae: Mapping[str, Any] = field(default_factory=dict)
    text: Mapping[str, Any] = field(default_factory=dict)
    size: tuple[int, int] | None = None


CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
UP_CROSS, UP_PLAIN = "CrossAttnUpBlock2D", "UpBlock2D"
SMALL_UNET = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": (CROSS, PLAIN),
    "up_block_types": (UP_PLAIN, UP_CROSS),
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
}
SMALL_VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": 16,
}
SMALL_TEXT = {
    "vocab_size": 500,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "projection_dim": 16,
    "bos_token_id": 498,
    "eos_token_id": 499,
    "pad_token_id": 499,
}
THREE = {
    "block_out_channels": (8, 16, 24),
    "down_block_types": (CROSS, CROSS, PLAIN),
    "up_block_types": (UP_PLAIN, UP_CROSS, UP_CROSS),
}
FOUR = {
    "block_out_channels": (8, 16, 16, 24),
    "down_block_types": (CROSS, CROSS, CROSS, PLAIN),
    "up_block_types": (UP_PLAIN, UP_CROSS, UP_CROSS, UP_CROSS),
}
CASES = {
    "small": Case(),
    "one block": Case(
        unet={"block_out_channels": (8,), "down_block_types": (CROSS,), "up_block_types": (UP_CROSS,)},
        vae={
            "block_out_channels": (8,),
            "down_block_types": ("DownEncoderBlock2D",),
            "up_block_types": ("UpDecoderBlock2D",),
        },
    ),
    "three blocks": Case(unet=THREE),
    "four blocks, two layers, as SD1.5": Case(unet=FOUR | {"layers_per_block": 2, "act_fn": "swish"}),
    "layers per block as a list": Case(unet=THREE | {"layers_per_block": [1, 2, 3]}),
    "mixed and mirrored otherwise": Case(
        unet=THREE | {"down_block_types": (PLAIN, CROSS, CROSS), "up_block_types": (UP_CROSS, UP_PLAIN, UP_CROSS)}
    ),
    "no cross attention outside the middle": Case(
        unet={"down_block_types": (PLAIN, PLAIN), "up_block_types": (UP_PLAIN, UP_PLAIN)}
    ),
    "heads by block, linear projections, as SD2": Case(
        unet=THREE | {"attention_head_dim": [1, 2, 3], "use_linear_projection": True, "upcast_attention": True},
        text={"hidden_act": "gelu"},
    ),
    "only cross attention": Case(unet={"only_cross_attention": True}),
    "only cross attention in one block": Case(unet=THREE | {"only_cross_attention": [True, False, False]}),
    "no middle": Case(unet={"mid_block_type": None}),
    "a middle without attention": Case(unet={"mid_block_type": "UNetMidBlock2D"}),
    "deep transformers": Case(unet=THREE | {"transformer_layers_per_block": [1, 2, 3]}),
    "deep transformers everywhere": Case(unet={"transformer_layers_per_block": 2, "layers_per_block": 2}),
    "deep transformers by layer, otherwise upwards": Case(
        unet={
            "layers_per_block": 2,
            "down_block_types": (CROSS, CROSS),
            "up_block_types": (UP_CROSS, UP_CROSS),
            "transformer_layers_per_block": [[1, 2], [2, 1]],
            "reverse_transformer_layers_per_block": [[1, 1, 2], [2, 1, 1]],
        }
    ),
    "other activations and time embeddings": Case(
        unet={
            "act_fn": "mish",
            "time_embedding_act_fn": "silu",
            "timestep_post_act": "silu",
            "resnet_time_scale_shift": "scale_shift",
            "flip_sin_to_cos": False,
            "freq_shift": 1,
            "center_input_sample": True,
        },
        vae={"act_fn": "relu"},
    ),
    "cross attention width by block": Case(unet={"cross_attention_dim": [16, 16]}),
    "inpainting": Case(unet={"in_channels": 9}),
    "wide latents": Case(
        unet={"in_channels": 16, "out_channels": 16},
        vae={"latent_channels": 16, "scaling_factor": 0.3611, "shift_factor": 0.1159, "use_quant_conv": False},
    ),
    "no convolutions around the latents": Case(vae={"use_quant_conv": False, "use_post_quant_conv": False}),
    "vae without attention": Case(vae={"mid_block_add_attention": False}),
    "vae of three blocks": Case(
        vae={
            "block_out_channels": (8, 8, 16),
            "layers_per_block": 2,
            "down_block_types": ("DownEncoderBlock2D",) * 3,
            "up_block_types": ("UpDecoderBlock2D",) * 3,
        }
    ),
    "text encoder of old files": Case(
        text={"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1, "hidden_act": "quick_gelu"}
    ),
    "short texts": Case(text={"max_position_embeddings": 20, "num_hidden_layers": 1, "hidden_act": "gelu"}),
    "sample size not square": Case(unet={"sample_size": [8, 12]}),
    "size given": Case(size=(32, 24)),
    "size that halves to odd numbers": Case(unet=THREE, size=(28, 20)),
}


@pytest.fixture
def make(tiny_checkpoint: Path, tmp_path: Path) -> Callable[..., Model]:
    """Writes a checkpoint of random weights in the given configuration, with diffusers and transformers."""

    def write(case: Case, text_class: type = CLIPTextModel) -> Model:
        torch.manual_seed(0)
        unet = UNet2DConditionModel(**(SMALL_UNET | dict(case.unet)))
        vae = AutoencoderKL(**(SMALL_VAE | dict(case.vae)))
        text = text_class(CLIPTextConfig(**(SMALL_TEXT | dict(case.text))))
        folder = tmp_path / "made"
        shutil.copytree(tiny_checkpoint, folder, ignore=shutil.ignore_patterns("unet", "vae", "text_encoder"))
        for name, module in (("unet", unet), ("vae", vae), ("text_encoder", text)):
            for param in module.parameters():
                param.data.add_(0.05 * torch.randn_like(param))  # norms and biases too
            module.eval().requires_grad_(False).save_pretrained(folder / name)
        return Model(folder, text, unet, vae)

    return write


def parts_of(folder: Path, **size: int) -> dict[str, Component]:
    checkpoint = open_checkpoint(str(folder), say=lambda line: None)
    return {part.spec.name: part for part in components(checkpoint, **size)}


def original_outputs(model: Model, name: str, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
    if name == "text_encoder":
        output = model.text_encoder(inputs["input_ids"])
        return output.last_hidden_state, output.pooler_output
    if name == "unet":
        return (model.unet(**inputs).sample,)
    if name == "vae_decoder":
        return (model.vae.decode(inputs["latent_sample"]).sample,)
    return (model.vae.encode(inputs["sample"]).latent_dist.parameters,)


def walked_sites(module: nn.Module, inputs: dict[str, Tensor]) -> dict[str, int]:
    """Counts the modules of each kind, and for SiLU, which several places share one module of, its calls."""
    kinds: dict[str, type | tuple[type, ...]] = {
        "attention": (Attention, CLIPAttention),
        "group_norm": nn.GroupNorm,
        "layer_norm": nn.LayerNorm,
        "gelu": (GEGLU, GELUActivation),
        "quick_gelu": QuickGELUActivation,
    }
    counts = Counter(kind for child in module.modules() for kind, types in kinds.items() if isinstance(child, types))
    hooks = [
        child.register_forward_hook(lambda *_: counts.update(["silu"]))
        for child in module.modules()
        if isinstance(child, nn.SiLU)
    ]
    module(*inputs.values())
    for hook in hooks:
        hook.remove()
    return dict(counts)


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
        assert dict(part.sites) == walked_sites(module, inputs)


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
    assert unet == {"attention": 32, "gelu": 16, "layer_norm": 48, "group_norm": 61, "silu": 68}
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


def test_text_encoder_without_the_prefix_is_understood(make: Callable[..., Model]) -> None:
    model = make(CASES["small"])
    file = model.folder / "text_encoder/model.safetensors"
    save_file({name.removeprefix("text_model."): tensor for name, tensor in load_file(file).items()}, file)
    check(model, parts_of(model.folder))


def test_text_encoder_with_projection_gives_the_same_states(make: Callable[..., Model]) -> None:
    model = make(CASES["small"], CLIPTextModelWithProjection)
    edit_json(model.folder / "model_index.json", text_encoder=["transformers", "CLIPTextModelWithProjection"])
    assert "text_projection.weight" in load_file(model.folder / "text_encoder/model.safetensors")
    check(replace(model, text_encoder=model.text_encoder.text_model), parts_of(model.folder))


def test_old_and_new_name_of_one_tensor_are_refused(make: Callable[..., Model]) -> None:
    model = make(CASES["small"])
    stored = load_file(model.folder / VAE_FILE)
    stored["decoder.mid_block.attentions.0.query.weight"] = stored["decoder.mid_block.attentions.0.to_q.weight"].clone()
    save_file(stored, model.folder / VAE_FILE)
    assert "1 given under an old and a new name: decoder.mid_block.attentions.0.to_q.weight" in refusal(model.folder)


def test_half_precision_files_are_read_as_float32(make: Callable[..., Model]) -> None:
    model = make(CASES["small"])
    for module in (model.text_encoder, model.unet, model.vae):
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.data = tensor.data.half().float() if tensor.is_floating_point() else tensor.data
    for file in ("text_encoder/model.safetensors", UNET_FILE, VAE_FILE):
        stored = load_file(model.folder / file)
        save_file({name: tensor.half() for name, tensor in stored.items()}, model.folder / file)
    check(model, parts_of(model.folder))


# Tracing: fake tensors only, and no other operator counts than the configuration's.


@pytest.mark.parametrize(
    "name", ["four blocks, two layers, as SD1.5", "size that halves to odd numbers", "wide latents"]
)
def test_components_trace_without_weights(name: str, make: Callable[..., Model]) -> None:
    model, case = make(CASES[name]), CASES[name]
    sizes = {} if case.size is None else {"width": case.size[0], "height": case.size[1]}
    for part in parts_of(model.folder, **sizes).values():
        check_trace(part, open_batch=False)


def test_unet_traces_with_an_open_batch(tiny_checkpoint: Path) -> None:
    unet = parts_of(tiny_checkpoint)["unet"]
    assert str(check_trace(unet, open_batch=True)[0]).startswith("s")
    assert check_trace(unet, open_batch=False) == (1, 4, 16, 16)


def check_trace(part: Component, open_batch: bool) -> tuple[Any, ...]:
    """The shape of the first output of the component's program, whose operators and parameters are checked."""
    with FakeTensorMode(shape_env=ShapeEnv()):
        module = part.build().eval().requires_grad_(False)
        sizes = [[int(n) for n in t.shape] for t in part.spec.inputs]
        if open_batch:
            sizes = [[2, *size[1:]] if len(size) > 1 else size for size in sizes]
        dtypes = [getattr(torch, t.dtype) for t in part.spec.inputs]
        inputs = tuple(torch.empty(size, dtype=dtype) for size, dtype in zip(sizes, dtypes, strict=True))
    batch = Dim("batch", min=1, max=32)
    shapes = tuple({0: batch} if open_batch and x.ndim > 1 else {} for x in inputs)
    program = torch.export.export(module, inputs, dynamic_shapes=shapes, strict=False)
    calls = Counter(str(node.target) for node in program.graph.nodes if node.op == "call_function")
    operators = {
        "attention": "aten.scaled_dot_product_attention.default",
        "group_norm": "aten.group_norm.default",
        "layer_norm": "aten.layer_norm.default",
        "gelu": "aten.gelu.default",
        "silu": "aten.silu.default",
        "quick_gelu": "aten.sigmoid.default",
    }
    assert {kind: calls[op] for kind, op in operators.items() if calls[op]} == dict(part.sites)
    assert {spec.target for spec in program.graph_signature.input_specs if spec.target} == set(part.weights)
    assert not program.constants
    (output,) = (node for node in program.graph.nodes if node.op == "output")
    return tuple(output.args[0][0].meta["val"].shape)


# What is refused.


def edit_json(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def refusal(folder: Path, **size: int) -> str:
    with pytest.raises(UserError) as caught:
        parts_of(folder, **size)
    message = str(caught.value)
    assert message and "\n" not in message
    return message


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "family": (
        "model_index.json",
        {"_class_name": "FluxPipeline"},
        "FluxPipeline, which cannot be exported; supported: ",
    ),
    "no family": ("model_index.json", {"_class_name": None}, "supported: "),
    "class": ("model_index.json", {"vae": ["diffusers", "AutoencoderTiny"]}, "vae is a AutoencoderTiny"),
    "no unet": ("model_index.json", {"unet": [None, None]}, "unet is a None"),
    "addition_embed_type": (
        "unet/config.json",
        {"addition_embed_type": "text_time"},
        "addition_embed_type 'text_time'",
    ),
    "class_embed_type": ("unet/config.json", {"class_embed_type": "timestep"}, "unet: class_embed_type"),
    "num_class_embeds": ("unet/config.json", {"num_class_embeds": 10}, "unet: num_class_embeds 10"),
    "time_cond_proj_dim": ("unet/config.json", {"time_cond_proj_dim": 256}, "unet: time_cond_proj_dim 256"),
    "encoder_hid_dim": ("unet/config.json", {"encoder_hid_dim": 64}, "unet: encoder_hid_dim 64"),
    "dual": ("unet/config.json", {"dual_cross_attention": True}, "unet: dual_cross_attention True"),
    "gligen": ("unet/config.json", {"attention_type": "gated"}, "unet: attention_type 'gated'"),
    "fourier": ("unet/config.json", {"time_embedding_type": "fourier"}, "unet: time_embedding_type 'fourier'"),
    "block": ("unet/config.json", {"down_block_types": [CROSS, "KDownBlock2D"]}, "down_block_types 'KDownBlock2D'"),
    "middle": ("unet/config.json", {"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}, "unet: mid_block_type"),
    "vae block": ("vae/config.json", {"up_block_types": ["AttnUpDecoderBlock2D"] * 2}, "vae: up_block_types"),
    "latents_mean": ("vae/config.json", {"latents_mean": [0.0] * 4}, "vae: latents_mean"),
    "activation": ("text_encoder/config.json", {"hidden_act": "no_such_thing"}, "text_encoder: "),
    "text heads": ("text_encoder/config.json", {"num_attention_heads": 7}, "text_encoder: "),
    "groups": ("unet/config.json", {"norm_num_groups": 7}, "unet: its config.json makes no model"),
    "lengths": ("unet/config.json", {"block_out_channels": [8]}, "unet: its config.json makes no model"),
    "a word for a number": ("vae/config.json", {"block_out_channels": "wide"}, "vae: its config.json makes no model"),
    "other width": ("unet/config.json", {"block_out_channels": [12, 16]}, "unet: the weights do not fit"),
    "other depth": ("text_encoder/config.json", {"num_hidden_layers": 3}, "text_encoder: the weights do not fit"),
    "a word for a component": ("model_index.json", {"unet": "UNet2DConditionModel"}, "unet is a None"),
    "a number for a class": ("model_index.json", {"unet": ["diffusers", 7]}, "unet is a 7"),
    "a word for a size": ("unet/config.json", {"sample_size": "big"}, "sample_size 'big'"),
    "too many sizes": ("unet/config.json", {"sample_size": [8, 8, 8]}, "sample_size [8, 8, 8]"),
    "no size": ("unet/config.json", {"sample_size": None}, "--size WxH"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_supported_is_named(kind: str, make: Callable[..., Model]) -> None:
    file, changes, words = REFUSED[kind]
    folder = make(CASES["small"]).folder
    edit_json(folder / file, **changes)
    assert words in refusal(folder)


def test_parts_that_do_not_fit_together_are_refused(make: Callable[..., Model]) -> None:
    assert "cross_attention_dim 24 does not fit" in refusal(make(Case(unet={"cross_attention_dim": 24})).folder)


def test_unet_of_other_channels_is_refused(make: Callable[..., Model]) -> None:
    assert "in_channels 8 and out_channels 4" in refusal(make(Case(unet={"in_channels": 8})).folder)


@pytest.mark.parametrize("size", [(33, 32), (32, 31), (0, 32), (-32, 32)])
def test_size_that_does_not_fit_is_refused(size: tuple[int, int], tiny_checkpoint: Path) -> None:
    assert "multiples of 2" in refusal(tiny_checkpoint, width=size[0], height=size[1])
