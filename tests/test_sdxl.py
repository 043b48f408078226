"""Stable Diffusion XL, narrow and with random weights: its parts equal those of diffusers and transformers, and its
bundle draws what diffusers' pipelines draw."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler, StableDiffusionXLImg2ImgPipeline
from PIL import Image
from safetensors.torch import load_file, save_file
from support.command import call
from support.family_cases import edit_json, parts_of, refusal
from support.faults import inject
from support.sdxl import UNET, decibels, draw_floats, open_diffusers, write_sdxl
from support.tokenizer_folders import TINY, configure, plain, write
from support.traced_parts import count_sites
from torch import Tensor

from pocketdiffusion.build import export
from pocketdiffusion.choices import ExportOptions
from pocketdiffusion.export.bundle_writer import write_tokenizers
from pocketdiffusion.export.component import load_module
from pocketdiffusion.export.families import components, program
from pocketdiffusion.export.families.parts import unet2d
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.runtime.bundle.bundle import Bundle, open_bundle
from pocketdiffusion.runtime.bundle.manifest import Manifest, Vae
from pocketdiffusion.runtime.pipeline import draw
from pocketdiffusion.runtime.program import Concat, Program
from pocketdiffusion.runtime.verify.conformance import judge_conformance, own_reader
from pocketdiffusion.runtime.verify.gate import judge
from pocketdiffusion.runtime.verify.golden import read_golden
from pocketdiffusion.runtime.verify.metrics import image_psnr_db

NAMES = ["text_encoder", "text_encoder_2", "unet", "vae_decoder", "vae_encoder"]


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sdxl(tmp_path_factory.mktemp("sdxl") / "narrow")


@pytest.fixture
def edited(sdxl: Path, tmp_path: Path) -> Path:
    """A folder to break."""
    return shutil.copytree(sdxl, tmp_path / "edited")


def original(pipeline: Any, name: str, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """What the pipeline takes of its module's results."""
    if name == "text_encoder":
        return (pipeline.text_encoder(inputs["input_ids"], output_hidden_states=True).hidden_states[-2],)
    if name == "text_encoder_2":
        output = pipeline.text_encoder_2(inputs["input_ids"], output_hidden_states=True)
        return output.hidden_states[-2], output[0]
    if name == "unet":
        added = {key: inputs[key] for key in ("text_embeds", "time_ids")}
        plain = {key: value for key, value in inputs.items() if key not in added}
        return (pipeline.unet(**plain, added_cond_kwargs=added).sample,)
    if name == "vae_decoder":
        return (pipeline.vae.decode(inputs["latent_sample"]).sample,)
    return (pipeline.vae.encode(inputs["sample"]).latent_dist.parameters,)


def check_parts(folder: Path) -> None:
    """Each component beside its original: outputs, shapes, sites."""
    pipeline, parts = open_diffusers(folder), parts_of(folder)
    assert list(parts) == NAMES
    for name, part in parts.items():
        module, inputs = load_module(part), part.example(1)
        assert {t.name: (t.shape, t.dtype) for t in part.spec.inputs} == {
            key: (tuple(value.shape), str(value.dtype).removeprefix("torch.")) for key, value in inputs.items()
        }
        with torch.no_grad():
            outputs, expected = module(*inputs.values()), original(pipeline, name, inputs)
            assert dict(part.sites) == count_sites(module, inputs), name
        assert [t.shape for t in part.spec.outputs] == [tuple(output.shape) for output in outputs]
        for output, reference in zip(outputs, expected, strict=True):
            torch.testing.assert_close(output, reference, rtol=0, atol=1e-5)
            assert reference.std() > 0.01, name
        assert set(part.weights) == set(module.state_dict())


def test_parts_equal_the_originals(sdxl: Path) -> None:
    check_parts(sdxl)


def test_parts_of_other_configurations(tmp_path: Path) -> None:
    """As in SDXL: three blocks, depths and heads for each; ends that the second text encoder looks for by its id."""
    three = {
        "block_out_channels": (8, 16, 24),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": [1, 2, 3],
        "attention_head_dim": [1, 2, 3],
    }
    check_parts(
        write_sdxl(tmp_path / "three", unet=three, text={"num_hidden_layers": 1}, text_2={"eos_token_id": 2013})
    )


def test_shapes_are_those_of_the_size(sdxl: Path) -> None:
    specs = {name: part.spec for name, part in parts_of(sdxl, width=32, height=24).items()}
    assert {t.name: t.shape for t in specs["unet"].inputs} == {
        "sample": (1, 4, 12, 16),
        "timestep": (1,),
        "encoder_hidden_states": (1, 77, 40),
        "text_embeds": (1, 20),
        "time_ids": (1, 6),
    }
    assert specs["vae_decoder"].outputs[0].shape == (1, 3, 24, 32)
    assert parts_of(sdxl, width=32, height=24)["unet"].example(0)["time_ids"].tolist() == [[24, 32, 0, 0, 24, 32]]


def test_what_is_computed_for_nothing_is_named(sdxl: Path) -> None:
    """The first text encoder's last layer, and the normalisation behind it."""
    lines: list[str] = []
    components(open_checkpoint(str(sdxl), progress=lines.append), progress=lines.append)
    (line,) = lines
    assert "has unused tensors" in line and "text_encoder.encoder.layers.1." in line


def test_sites_of_the_real_unet() -> None:
    """Its configuration as it is published: 70 blocks of two attentions."""
    real = {
        **UNET,
        "block_out_channels": [320, 640, 1280],
        "layers_per_block": 2,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 2, 10],
    }
    sites = unet2d.sites(unet2d.read_config("unet", real, added="text_time"))
    norms = {"layer_norm": 210, "group_norm": 46}
    assert sites == {"attention": 140, "gelu": 70, "silu": 54, "sinusoidal_embedding": 2, **norms}


def test_old_names_of_the_text_encoders_are_understood(edited: Path) -> None:
    """Files of real models say `text_model.` in both, and hold position_ids."""
    for part in ("text_encoder", "text_encoder_2"):
        file = edited / part / "model.safetensors"
        stored = load_file(file)
        names = {name: name if name.startswith("text_") else f"text_model.{name}" for name in stored}
        old = {names[name]: tensor for name, tensor in stored.items()}
        save_file(old | {"text_model.embeddings.position_ids": torch.arange(77)[None]}, file)
    check_parts(edited)


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "refiner": ("model_index.json", {"requires_aesthetics_score": True}, "requires_aesthetics_score"),
    "one encoder": ("model_index.json", {"text_encoder": [None, None]}, "text_encoder is a None"),
    "no projection": (
        "model_index.json",
        {"text_encoder_2": ["transformers", "CLIPTextModel"]},
        "text_encoder_2 is a CLIPTextModel",
    ),
    "not told the size": (
        "unet/config.json",
        {"addition_embed_type": None},
        "addition_embed_type None in config.json is not supported; text_time is",
    ),
    "told something else": (
        "unet/config.json",
        {"projection_class_embeddings_input_dim": 40},
        "projection_class_embeddings_input_dim 40",
    ),
    "no width of time": ("unet/config.json", {"addition_time_embed_dim": None}, "addition_time_embed_dim None"),
    "states that do not fit": (
        "text_encoder_2/config.json",
        {"hidden_size": 48, "num_attention_heads": 4},
        "text_encoder_2: the weights do not fit",
    ),
    "means of latents": ("vae/config.json", {"latents_mean": [0.0] * 4}, "vae: latents_mean"),
    "depth": ("text_encoder/config.json", {"num_hidden_layers": 4}, "text_encoder: the weights do not fit"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_supported_is_named(kind: str, edited: Path) -> None:
    file, changes, words = REFUSED[kind]
    edit_json(edited / file, **changes)
    assert words in refusal(edited)


def test_prompts_of_two_lengths_are_refused(edited: Path) -> None:
    configure(edited / "tokenizer_2", model_max_length=64)
    assert "tokenizer_2/tokenizer_config.json: model_max_length 64 is not the 77" in refusal(edited)


def test_sizes_that_the_pipeline_does_not_draw_are_refused(sdxl: Path) -> None:
    assert "multiples of 8" in refusal(sdxl, width=20, height=16)


def test_the_folder_pads_as_real_ones_do(sdxl: Path) -> None:
    assert json.loads((sdxl / "tokenizer_2/tokenizer_config.json").read_text())["pad_token"] == "!"
    ids = open_diffusers(sdxl).tokenizer_2("red!", padding="max_length").input_ids
    assert ids[2:6] == [0, 2013, 0, 0]


# The whole line: a bundle beside diffusers' pipelines.


@pytest.fixture(scope="module")
def bundle(sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Pictures of 24x16, which are not square, as ONNX in float32. It takes 12 s of processor time."""
    out = tmp_path_factory.mktemp("sdxl_bundle") / "bundle"
    return export(str(sdxl), "generic", out, ExportOptions(format="onnx", recipe="fp32", width=24, height=16))


LONG = "a cat, " * 40
DRAWN: dict[str, tuple[str, str | None, float]] = {
    "no negative prompt": ("a red apple!", None, 5.0),
    "an empty negative prompt": ("a red apple!", "", 5.0),
    "a negative prompt": ("the sunflower's 2 petals", "grey! and blurry", 3.0),
    "a negative prompt alone": ("", "grey", 7.5),
    "a prompt that is too long": (LONG, "!", 5.0),
    "no guidance": ("a red apple!", None, 1.0),
}


@pytest.mark.parametrize("kind", DRAWN)
def test_text_to_image_is_diffusers(kind: str, sdxl: Path, bundle: Bundle) -> None:
    prompt, negative, guidance = DRAWN[kind]
    theirs = draw_floats(
        open_diffusers(sdxl),
        prompt,
        7,
        negative_prompt=negative,
        num_inference_steps=4,
        guidance_scale=guidance,
        width=24,
        height=16,
    )
    assert decibels(bundle, theirs, prompt, negative_prompt=negative, seed=7, steps=4, guidance=guidance) > 100


@pytest.mark.parametrize("negative", [None, "", "grey!"])
def test_image_to_image_is_diffusers(negative: str | None, sdxl: Path, bundle: Bundle) -> None:
    start = draw(bundle, "a cat", seed=3, steps=2)
    theirs = draw_floats(
        open_diffusers(sdxl, StableDiffusionXLImg2ImgPipeline),
        "a red apple!",
        5,
        negative_prompt=negative,
        image=Image.fromarray(start),
        strength=0.6,
        num_inference_steps=5,
        guidance_scale=5.0,
    )
    options: dict[str, Any] = {"negative_prompt": negative, "seed": 5, "steps": 5, "guidance": 5.0}
    assert decibels(bundle, theirs, "a red apple!", image=start, strength=0.6, **options) > 100


def test_another_sampler_is_diffusers(sdxl: Path, bundle: Bundle) -> None:
    """One that draws noise at each step, with another end of the schedule than SDXL's own."""
    pipeline = open_diffusers(sdxl)
    pipeline.scheduler = EulerAncestralDiscreteScheduler.from_config(pipeline.scheduler.config)
    theirs = draw_floats(pipeline, "a cat", 5, num_inference_steps=4, guidance_scale=5.0, width=24, height=16)
    assert decibels(bundle, theirs, "a cat", sampler="euler_ancestral", seed=5, steps=4, guidance=5.0) > 100


def test_an_absent_negative_prompt_is_not_an_empty_one(bundle: Bundle) -> None:
    pictures = [draw(bundle, "a cat", negative_prompt=negative, steps=2) for negative in (None, "")]
    assert image_psnr_db(*pictures) < 60


def test_the_bundle_says_what_it_is(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert list(manifest.graphs["onnx"]) == NAMES and manifest.model.family == "sdxl"
    assert [tokenizer.pad_id for tokenizer in manifest.tokenizers] == [2013, 0]
    assert {tokenizer.vocab for tokenizer in manifest.tokenizers} == {"tokenizer/vocab.json"}  # the same one, once
    assert manifest.program.absent_negative == "zeros" and manifest.vae.scaling_factor == 0.13025
    assert (manifest.latents.height, manifest.latents.width, manifest.latents.scale) == (8, 12, 2)
    assert not (bundle.folder / "onnx/model_index.json").exists()  # optimum asks for all hidden states
    assert verify_lines(bundle) == []


def test_vocabularies_that_differ_have_folders_of_their_own(sdxl: Path, tmp_path: Path) -> None:
    other = write(plain(tmp_path / "other", unk_token="<unk>"), TINY)
    checkpoint = open_checkpoint(str(sdxl), progress=lambda line: None)
    checkpoint = replace(checkpoint, tokenizers={**checkpoint.tokenizers, "tokenizer_2": other})
    (tmp_path / "out").mkdir()
    written = write_tokenizers(tmp_path / "out", checkpoint)
    assert [tokenizer.vocab for tokenizer in written] == ["tokenizer/vocab.json", "tokenizer_2/vocab.json"]
    assert json.loads((tmp_path / "out/tokenizer_2/vocab.json").read_text()) == TINY["vocab.json"]


def verify_lines(bundle: Bundle) -> list[str]:
    """The verdicts that failed when the bundle is judged again by what it holds."""
    verdicts, _ = judge(open_bundle(bundle.folder), read_golden(bundle)[:2])
    return [verdict.subject for verdict in verdicts if not verdict.passed and verdict.rung != "pictures"]


def exchanged(program: Program, **changes: Any) -> Program:
    """The program with other inputs of the UNet."""
    (unet,) = program.stages[2].calls
    stages = list(program.stages)
    stages[2] = stages[2].model_copy(
        update={"calls": (unet.model_copy(update={"inputs": {**unet.inputs, **changes}}),)}
    )
    return program.model_copy(update={"stages": tuple(stages)})


FAULTS: dict[str, tuple[Callable[[Manifest], Mapping[str, Any]], set[str]]] = {
    "states in another order": (
        lambda m: {
            "program": exchanged(m.program, encoder_hidden_states=Concat(concat=("states/2", "states/1"), axis=2))
        },
        {"program"},
    ),
    "tokenizers exchanged": (lambda m: {"tokenizers": m.tokenizers[::-1]}, {"tokenizer"}),
    "an absent negative prompt encoded": (
        lambda m: {"program": m.program.model_copy(update={"absent_negative": "encode_empty"})},
        {"program"},
    ),
    "the VAE's scale of another model": (
        lambda m: {"vae": Vae(scaling_factor=0.18215, shift_factor=0.0)},
        {"vae_scale"},
    ),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_faults_are_caught(kind: str, bundle: Bundle, tmp_path: Path) -> None:
    change, blamed = FAULTS[kind]
    faulty = inject(bundle, lambda folder, m: m.model_copy(update=dict(change(m))), tmp_path / "faulty")
    assert set(verify_lines(faulty)) == blamed


def test_a_folder_without_the_field_zeroes_too(edited: Path) -> None:
    """As diffusers: force_zeros_for_empty_prompt is true where model_index.json is silent."""
    for changes, wanted in (({}, "zeros"), ({"force_zeros_for_empty_prompt": False}, "encode_empty")):
        index = json.loads((edited / "model_index.json").read_text())
        index.pop("force_zeros_for_empty_prompt", None)
        (edited / "model_index.json").write_text(json.dumps(index | changes))
        checkpoint = open_checkpoint(str(edited), progress=lambda line: None)
        assert program(checkpoint, components(checkpoint)).absent_negative == wanted


def test_conformance_vectors_are_of_both_tokenizers(bundle: Bundle) -> None:
    reports, tells = judge_conformance(bundle)
    assert all(report.passed for report in reports)
    second = {name for name in tells if name.endswith(", tokenizer 2")}
    assert {"vocabulary, tokenizer 2", "prompts, exclamation marks, tokenizer 2"} < second
    reader = own_reader(bundle)
    reports, _ = judge_conformance(bundle, replace(reader, others=(reader,)))  # the first in place of the second
    failed = {report.subject for report in reports if not report.passed}
    assert "prompts, exclamation marks, tokenizer 2" in failed and failed < second


@pytest.mark.slow  # it starts a process
def test_compare_names_every_graph(sdxl: Path, bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "prompts").write_text("a cat")
    run = call("compare", sdxl, bundle.folder, "--prompts", tmp_path / "prompts", "--steps", "2")
    assert run.returncode == 0, run.stderr
    for name in NAMES:
        assert name in run.stdout
