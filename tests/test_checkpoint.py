"""Checkpoints from the built-in name and folders; what is wrong with one is said in one line."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.command import call
from support.command import refusal as refused_command

from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.checkpoints.folder import FolderPipeline
from pocketdiffusion.export.checkpoints.safetensors_header import read_header
from pocketdiffusion.export.checkpoints.tensor import places_of
from pocketdiffusion.export.families import components
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.runtime.errors import UserError

SINGLE = "diffusion_pytorch_model.safetensors"
UNET, VAE = f"unet/{SINGLE}", f"vae/{SINGLE}"


def quiet(line: str) -> None:
    """What `progress` is where nothing is to be said."""
    raise AssertionError(f"said: {line}")


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint, to be spoilt."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "tiny-copy"))


def refusal(action: Callable[[], object]) -> str:
    """The message, which must be one line."""
    with pytest.raises(UserError) as caught:
        action()
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def opened(path: Path) -> Checkpoint:
    return open_checkpoint(str(path), progress=lambda line: None)


# What a whole checkpoint says.


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
    assert f"unet has no {shards[1].name}, which {SINGLE}.index.json names" in refusal(lambda: opened(folder))


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


# What is wrong with one that is not whole.


def test_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    assert "no model_index.json" in refusal(lambda: opened(tmp_path))


def test_no_such_folder(tmp_path: Path) -> None:
    assert "no folder" in refusal(lambda: opened(tmp_path / "nothing"))


def test_revision_of_a_folder(tiny_checkpoint: Path) -> None:
    assert "hub ids only" in refusal(lambda: open_checkpoint(str(tiny_checkpoint), revision="main"))


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "model.pth", "model.bin"])
def test_pickled_file_is_refused_and_never_opened(tmp_path: Path, name: str) -> None:
    trap = tmp_path / "ran"
    (tmp_path / name).write_bytes(pickle.dumps(Trap(trap)))
    assert "safe_serialization=True" in refusal(lambda: opened(tmp_path / name))
    assert not trap.exists()


class Trap:
    """Unpickling it writes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.file),)


def test_single_safetensors_file_is_refused_with_the_way_out(folder: Path) -> None:
    assert "from_single_file" in refusal(lambda: opened(folder / UNET))


def test_pickled_weights_are_refused_and_never_opened(folder: Path, tmp_path: Path) -> None:
    (folder / UNET).unlink()
    (folder / "unet/diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Trap(tmp_path / "ran")))
    message = refusal(lambda: opened(folder))
    assert message.startswith("unet/diffusion_pytorch_model.bin is a pickle") and "safe_serialization=True" in message
    assert not (tmp_path / "ran").exists()


def _remove(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def _write(name: str, content: bytes) -> Callable[[Path], None]:
    return _edit(name, lambda _: content)


def _edit(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return spoil


def _header(change: Callable[[dict[str, dict[str, object]]], object]) -> Callable[[Path], None]:
    """Changes the header of the UNet's weights and leaves the data."""

    def edit(data: bytes) -> bytes:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        header.pop("__metadata__", None)
        change(header)
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + data[8 + length :]

    return _edit(UNET, edit)


FIRST = "conv_in.bias"
SPOILT: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "index is no JSON": (_write("model_index.json", b"{oops"), ("model_index.json", "not valid JSON")),
    "index is a list": (_write("model_index.json", b"[]"), ("model_index.json", "not a JSON object")),
    "index is no text": (_write("model_index.json", b"\xff\xfe\x00"), ("model_index.json", "not valid JSON")),
    "index without a tokenizer": (
        _edit("model_index.json", lambda data: data.replace(b'"tokenizer"', b'"words"')),
        ("has no entry tokenizer",),
    ),
    "no component folder": (_remove("vae"), ("vae", "no such folder")),
    "no component config": (_remove("vae/config.json"), ("vae/config.json", "missing")),
    "config is no JSON": (_write("unet/config.json", b"\x80\x04K\x01."), ("unet/config.json", "not valid JSON")),
    "no weights": (_remove(UNET), ("unet", "no safetensors file")),
    "no scheduler config": (_remove("scheduler/scheduler_config.json"), ("scheduler_config.json", "missing")),
    "no tokenizer": (_remove("tokenizer"), ("tokenizer", "no such folder")),
    "no tokenizer settings": (_remove("tokenizer/tokenizer_config.json"), ("tokenizer_config.json",)),
    "empty weights": (_write(UNET, b""), (UNET, "truncated")),
    "weights cut in the header": (_edit(UNET, lambda data: data[:100]), (UNET, "truncated")),
    "weights cut in the data": (_edit(UNET, lambda data: data[:-4]), (UNET, "should have")),
    "weights too long": (_edit(UNET, lambda data: data + b"1234"), (UNET, "should have")),
    "weights are text": (_write(UNET, b"<html><body>404: not found</body></html>"), (UNET, "truncated")),
    "weights are a pointer": (_write(UNET, b"version https://git-lfs.github.com/spec/v1\n"), (UNET, "git lfs pull")),
    "header is no JSON": (_edit(UNET, lambda data: data[:8] + b"?" + data[9:]), (UNET, "corrupt header")),
    "header is a list": (_edit(UNET, lambda data: b"\x02" + bytes(7) + b"[]"), (UNET, "corrupt header")),
    "header lacks a field": (_header(lambda h: h[FIRST].pop("dtype")), (UNET, "corrupt header", "dtype")),
    "unknown dtype": (_header(lambda h: h[FIRST].update(dtype="F12")), (UNET, FIRST, "F12")),
    "size is not the shape's": (_header(lambda h: h[FIRST].update(shape=[99])), (UNET, "F32[99]")),
    "negative shape": (_header(lambda h: h[FIRST].update(shape=[-4, -4])), (UNET, "natural numbers")),
    "shape is text": (_header(lambda h: h[FIRST].update(shape="16")), (UNET, "corrupt header")),
    "a gap": (_header(lambda h: h.pop(FIRST)), (UNET, "gap or overlap")),
    "two tensors in one place": (_header(lambda h: h.update(copy=h[FIRST])), (UNET, "gap or overlap")),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_spoilt_folder_is_refused_in_one_line(folder: Path, kind: str) -> None:
    spoil, words = SPOILT[kind]
    spoil(folder)
    message = refusal(lambda: opened(folder))
    assert all(word in message for word in words), message


def test_folder_without_any_vocabulary(folder: Path) -> None:
    for name in ("vocab.json", "tokenizer.json"):
        (folder / "tokenizer" / name).unlink(missing_ok=True)
    assert "vocab.json and merges.txt" in refusal(lambda: opened(folder))


# The weights must be those of the configuration.


def change_tensors(file: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)


def test_missing_tensor_is_named(folder: Path) -> None:
    change_tensors(folder / UNET, lambda t: t.pop("mid_block.resnets.0.conv1.weight"))
    message = refusal(lambda: components(opened(folder)))
    assert "1 missing: unet.mid_block.resnets.0.conv1.weight" in message


def test_unexpected_tensor_is_named(folder: Path) -> None:
    change_tensors(folder / "vae/diffusion_pytorch_model.safetensors", lambda t: t.update(extra=torch.zeros(1)))
    assert "vae: " in (message := refusal(lambda: components(opened(folder)))) and "1 unexpected: extra" in message


HARMLESS = ("model_ema.decay", "model_ema.num_updates", "loss.logvar", "conv_in.total_ops", "alphas_cumprod")


def test_what_training_leaves_behind_is_passed_over_with_a_line(folder: Path) -> None:
    change_tensors(folder / VAE, lambda t: t.update({name: torch.zeros(1) for name in HARMLESS[:3]}))
    change_tensors(folder / UNET, lambda t: t.update({name: torch.zeros(1) for name in HARMLESS[3:]}))
    said: list[str] = []
    components(opened(folder), progress=said.append)
    (line,) = said
    assert all(name in line for name in HARMLESS) and "ignored" in line


@pytest.mark.slow
def test_other_tensors_are_passed_over_where_a_pattern_names_them(folder: Path) -> None:
    change_tensors(folder / VAE, lambda t: t.update({"extra.a.b": torch.zeros(1)}))
    change_tensors(folder / UNET, lambda t: t.update({"more": torch.zeros(1)}))
    line = refusal(lambda: components(opened(folder)))
    assert "1 unexpected: unet.more; --allow-unexpected PATTERN ignores unexpected tensors" in line
    line = refused_command("inspect", folder, "--allow-unexpected", "more")
    assert "vae: " in line and "1 unexpected: extra.a.b" in line
    for pattern in ("extra.*", "vae.extra.?.b", "*"):
        done = call("inspect", folder, "--allow-unexpected", "unet.m*", "--allow-unexpected", pattern)
        assert done.returncode == 0 and "ignored: " in done.stdout + done.stderr, done.stderr
        assert all(name in " ".join((done.stdout + done.stderr).split()) for name in ("unet.more", "vae.extra.a.b"))
    change_tensors(folder / VAE, lambda t: t.pop("encoder.conv_in.bias"))
    assert "1 missing: encoder.conv_in.bias" in refused_command("inspect", folder, "--allow-unexpected", "*")


def test_misshapen_tensor_is_named_with_both_shapes(folder: Path) -> None:
    change_tensors(folder / UNET, lambda t: t.update({"conv_in.weight": t["conv_in.weight"][:, :3]}))
    message = refusal(lambda: components(opened(folder)))
    assert "1 of another shape: unet.conv_in.weight is [16, 3, 3, 3] and should be [16, 4, 3, 3]" in message


def test_tensor_of_integers_is_named(folder: Path) -> None:
    change_tensors(folder / UNET, lambda t: t.update({FIRST: t[FIRST].to(torch.int8)}))
    assert f"unet.{FIRST} is int8" in refusal(lambda: components(opened(folder)))


def test_long_lists_are_cut_and_counted(folder: Path) -> None:
    change_tensors(folder / UNET, lambda t: [t.pop(name) for name in list(t)[:25]])
    message = refusal(lambda: components(opened(folder)))
    assert "25 missing: " in message and "and 15 more" in message
