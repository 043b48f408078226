"""Checkpoints from the built-in name and folders: what is read of them, and which parts and classes are used."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.checkpoint_folders import FIRST, UNET, change_tensors, opened, refusal

from pocketdiffusion.export.checkpoints.folder import FolderPipeline
from pocketdiffusion.export.checkpoints.safetensors_header import read_header
from pocketdiffusion.export.checkpoints.tensor import places_of
from pocketdiffusion.export.families import components
from pocketdiffusion.export.opening import open_checkpoint


def quiet(line: str) -> None:
    """What `progress` is where nothing is to be said."""
    raise AssertionError(f"said: {line}")


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint, to be spoilt."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "tiny-copy"))


def test_folder_gives_configs_scheduler_and_every_tensor(tiny_checkpoint: Path) -> None:
    checkpoint = open_checkpoint(str(tiny_checkpoint), progress=quiet)
    assert checkpoint.name == tiny_checkpoint.name and checkpoint.revision is None
    assert set(checkpoint.configs) == set(checkpoint.tensors) == {"text_encoder", "unet", "vae"}
    assert checkpoint.configs["unet"]["block_out_channels"] == [16, 32]
    assert checkpoint.scheduler["_class_name"] == "PNDMScheduler" and checkpoint.scheduler["skip_prk_steps"]
    assert checkpoint.tokenizers == {"tokenizer": tiny_checkpoint / "tokenizer"}
    for part, tensors in checkpoint.tensors.items():
        (file,) = (tiny_checkpoint / part).glob("*.safetensors")
        stored = load_file(file)
        assert set(tensors) == set(stored)
        for name, ref in tensors.items():
            np.testing.assert_array_equal(ref.read(), stored[name].numpy())


def test_built_in_model_opens_from_any_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = open_checkpoint("emoji", progress=lambda line: None)
    assert checkpoint.name == "emoji" and set(checkpoint.tensors) == {"text_encoder", "unet", "vae"}


def test_missing_scaling_factor_is_the_one_that_diffusers_assumes(folder: Path) -> None:
    file = folder / "vae/config.json"
    config = json.loads(file.read_text())
    del config["scaling_factor"]
    file.write_text(json.dumps(config))
    assert opened(folder).configs["vae"]["scaling_factor"] == 0.18215


def test_fingerprint_is_that_of_the_weights_alone(folder: Path, tiny_checkpoint: Path) -> None:
    (folder / "README.md").write_text("words")
    assert opened(folder).fingerprint == opened(tiny_checkpoint).fingerprint
    with (folder / UNET).open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"\x77")
    assert opened(folder).fingerprint != opened(tiny_checkpoint).fingerprint


@pytest.mark.parametrize(
    ("files", "licence"),
    [
        ({}, "unknown"),
        (
            {"README.md": "---\nlicense: creativeml-openrail-m\ntags:\n- x\n---\n# Model\nlicense: mit\n"},
            "creativeml-openrail-m",
        ),
        ({"README.md": "---\nlicense:\n- apache-2.0\n---\n"}, "apache-2.0"),
        ({"README.md": "---\nlicense: other\nlicense_name: some-terms\n---\n"}, "some-terms"),
        ({"README.md": "license: mit\n", "LICENSE.md": "words"}, "see LICENSE.md"),
        ({"README.md": "---\nlicense: [unclosed\n---\n", "LICENSE": "words"}, "see LICENSE"),
        ({"README.md": "---\n- a list\n---\n"}, "unknown"),
        ({"README.md": "---\n1: number\nlicense: mit\n---\n"}, "unknown"),
        ({"README.md": '---\nlicense: "cc-by-4.0"  # ours\nmodel-index: wrong\n---\n'}, "cc-by-4.0"),
        ({"README.md": "\ufeff---\r\nlicense: mit\r\n---\r\n"}, "mit"),
    ],
)
def test_licence_comes_from_the_card_or_a_file(folder: Path, files: dict[str, str], licence: str) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)
    assert opened(folder).licence == licence


def test_shards_are_read_as_one(folder: Path, tiny_checkpoint: Path) -> None:
    from diffusers import UNet2DConditionModel

    whole = opened(tiny_checkpoint).tensors["unet"]
    model = UNet2DConditionModel.from_pretrained(tiny_checkpoint / "unet")
    shutil.rmtree(folder / "unet")
    model.save_pretrained(folder / "unet", max_shard_size="300KB")
    shards = sorted((folder / "unet").glob("*-of-*.safetensors"))
    assert len(shards) > 2
    tensors = open_checkpoint(str(folder), progress=quiet).tensors["unet"]
    assert set(tensors) == set(whole)
    for name, ref in tensors.items():
        np.testing.assert_array_equal(ref.read(), whole[name].read())
    shards[1].unlink()
    assert f"unet has no {shards[1].name}, which {Path(UNET).name}.index.json names" in refusal(lambda: opened(folder))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_variant_alone_is_read(folder: Path, dtype: torch.dtype) -> None:
    stored = {name: tensor.to(dtype) for name, tensor in load_file(folder / UNET).items()}
    save_file(stored, folder / "unet/diffusion_pytorch_model.fp16.safetensors")
    (folder / UNET).unlink()
    said: list[str] = []
    checkpoint = open_checkpoint(str(folder), progress=said.append)
    assert (
        checkpoint.open_pipeline == FolderPipeline(folder, "fp16")
        and len(said) == 1
        and said[0].endswith(": unet fp16")
    )
    for name, ref in checkpoint.tensors["unet"].items():
        np.testing.assert_array_equal(ref.read(), stored[name].float().numpy())


def test_what_is_not_used_is_named_in_one_line_and_the_full_weights_win(folder: Path) -> None:
    shutil.copy(folder / UNET, folder / "unet/diffusion_pytorch_model.fp16.safetensors")
    shutil.copy(folder / UNET, folder / "unet/diffusion_pytorch_model.non_ema.safetensors")
    (folder / "vae/diffusion_pytorch_model.bin").write_bytes(b"pickle")
    (folder / "v1-5-pruned.ckpt").write_bytes(b"pickle")
    index = json.loads((folder / "model_index.json").read_text())
    for part in ("safety_checker", "feature_extractor"):
        (folder / part).mkdir()
        index[part] = ["transformers", "Something"]
    (folder / "model_index.json").write_text(json.dumps(index))
    said: list[str] = []
    checkpoint = open_checkpoint(str(folder), progress=said.append)
    assert {file.name for file, _ in places_of(checkpoint.tensors["unet"].values())} == {Path(UNET).name}
    (line,) = said
    assert line.endswith(
        "feature_extractor, safety_checker, v1-5-pruned.ckpt, unet/diffusion_pytorch_model.fp16.safetensors, "
        "unet/diffusion_pytorch_model.non_ema.safetensors, vae/diffusion_pytorch_model.bin"
    )


FLOAT8 = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")


@pytest.mark.parametrize("dtype", FLOAT8)
def test_float8_is_read_as_torch_reads_it(dtype: str, tmp_path: Path) -> None:
    every = torch.arange(256, dtype=torch.uint8).view(getattr(torch, dtype)).reshape(4, 64)
    save_file({"x": every}, tmp_path / "x.safetensors")
    np.testing.assert_array_equal(read_header(tmp_path / "x.safetensors")["x"].read(), every.float().numpy())


def test_a_unet_in_float8_has_the_weights_that_diffusers_gives_it(folder: Path) -> None:
    from diffusers import UNet2DConditionModel

    stored = {n: t.to(torch.float8_e4m3fn) if t.ndim > 1 else t for n, t in load_file(folder / UNET).items()}
    save_file(stored, folder / UNET, {"format": "pt"})
    expected = UNet2DConditionModel.from_pretrained(folder / "unet").state_dict()
    (unet,) = (part for part in components(opened(folder)) if part.spec.name == "unet")
    assert {ref.dtype for ref in unet.weights.values()} == {"float32", "float8_e4m3fn"}
    for name, ref in unet.weights.items():
        np.testing.assert_array_equal(ref.read(), expected[name.removeprefix("unet.")].numpy())


def test_what_nothing_uses_may_be_of_any_type(folder: Path) -> None:
    """The format's own types only: complex numbers, and four and six bits a number, are no weights, and no mistake."""
    change_tensors(folder / UNET, lambda t: t.update({"loss.x": torch.zeros(3, dtype=torch.complex64)}))
    components(opened(folder))
    change_tensors(folder / UNET, lambda t: t.update({FIRST: torch.zeros(16, dtype=torch.complex64)}))
    assert f"1 not floating-point: unet.{FIRST} is complex64 in {UNET}" in refusal(lambda: components(opened(folder)))


# Parts that the pipeline does not use, and parts of other libraries.


def edit_index(folder: Path, **changes: object) -> None:
    file = folder / "model_index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    "entry",
    [["diffusers", "ControlNetModel"], [None, None], None, ["my_code", "Mine"], "words", [1, 2, 3], {"a": 1}, True],
    ids=str,
)
def test_a_part_that_the_pipeline_does_not_use_is_not_looked_at(
    entry: object, folder: Path, tiny_checkpoint: Path
) -> None:
    edit_index(folder, controlnet=entry, tokenizer_2=entry, text_encoder_2=entry)
    (folder / "text_encoder_2").mkdir()
    checkpoint = opened(folder)
    assert set(checkpoint.tensors) == set(opened(tiny_checkpoint).tensors)
    assert set(checkpoint.tokenizers) == {"tokenizer"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"_class_name": ["pipeline", "MyPipeline"]}, "['pipeline', 'MyPipeline'], a pipeline with code of its own"),
        ({"_class_name": "MyPipeline"}, "is a MyPipeline, which cannot be exported; supported: "),
        ({"_class_name": 3}, "is a 3, which cannot be exported; supported: "),
        ({"_class_name": "FluxPipeline", "tokenizer": None}, "is a FluxPipeline, which cannot be exported"),
        ({"unet": ["my_unet", "UNet2DConditionModel"]}, "from 'my_unet', code of its own, which is never run"),
        (
            {"unet": ["transformers", "UNet2DConditionModel"]},
            "from transformers, which does not have it: write diffusers",
        ),
        ({"unet": [None, "UNet2DConditionModel"]}, "UNet2DConditionModel from None"),
        ({"scheduler": ["my_scheduler", "Mine"]}, "scheduler's Mine from 'my_scheduler', code of its own"),
        ({"tokenizer": ["my_words", "Mine"]}, "tokenizer's Mine from 'my_words', code of its own"),
        ({"scheduler": [None, None]}, "has no entry scheduler"),
        ({"vae": [None, None]}, "vae is a None"),
        ({"vae": {"a": "b"}}, "vae is a None"),
        ({"vae": [["diffusers"], ["AutoencoderKL"]]}, "vae is a ['AutoencoderKL']"),
    ],
    ids=str,
)
def test_code_and_classes_that_are_not_served_are_told(changes: dict[str, object], words: str, folder: Path) -> None:
    edit_index(folder, **changes)
    assert words in refusal(lambda: opened(folder))
