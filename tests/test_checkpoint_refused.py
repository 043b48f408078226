"""What is wrong with a checkpoint's files, or with its tensors, is said in one line."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.checkpoint_folders import FIRST, UNET, VAE, change_tensors, opened, refusal
from support.command import call
from support.command import refusal as refused_command

from pocketdiffusion.export.families import components
from pocketdiffusion.export.opening import open_checkpoint


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint, to be spoilt."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "tiny-copy"))


# Folders and files that are not a complete checkpoint.


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
    "negative shape": (_header(lambda h: h[FIRST].update(shape=[-4, -4])), (UNET, "integers of 0 or more")),
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
    assert "1 unexpected: unet.more; if they are not needed, give --allow-unexpected PATTERN" in line
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
