"""The command line as a user meets it: real processes, exit codes, one line for each mistake."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from support.command import Arguments, call, files_below, refusal
from support.family_cases import Case, Model

from pocketdiffusion.runtime.bundle.bundle import open_bundle
from pocketdiffusion.runtime.bundle.sealing import seal
from pocketdiffusion.runtime.verify.metrics import image_psnr_db

WIDE = {"cross_attention_dim": 32}
THREE = {
    "block_out_channels": (8, 16, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
}


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")


# Usage.


def test_without_a_command_it_prints_its_help() -> None:
    done = call(fresh=True)
    assert done.returncode == 0 and "generate" in done.stdout and not done.stderr


@pytest.mark.parametrize(
    "command", ["targets", "export", "verify", "devices install", "devices list", "list", "generate", "inspect"]
)
def test_each_command_has_a_help(command: str) -> None:
    done = call(*command.split(), "--help", fresh=command == "export")
    assert done.returncode == 0 and f"Usage: pocketdiffusion {command}" in done.stdout and not done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("draw",), "No such command 'draw'"),
        (("devices",), "Missing command"),
        (("generate", "DIR"), "Missing argument 'PROMPT'"),
        (("export", "-o", "DIR"), "Missing option '--target'"),
        (("generate", "DIR", "apple", "--stepz", "3"), "No such option: --stepz"),
        (("generate", "DIR", "apple", "--steps", "-1"), "--steps"),
        (("generate", "DIR", "apple", "--steps", "0"), "--steps"),
        (("generate", "DIR", "apple", "--steps", "2.5"), "Invalid value for '--steps'"),
        (("generate", "DIR", "apple", "--seed", "x"), "--seed"),
        (("generate", "DIR", "apple", "--guidance", "nan"), "guidance nan"),
        (("verify", "DIR", "--device", "mars"), "Invalid value for '--device'"),
        (("verify", "DIR", "--on", "arm64"), "No such option: --on"),
        (("verify", "DIR", "--device", "arm64", "--limit", "0"), "--limit"),
        (("export", "--target", "generic", "-o", "DIR", "--size", "big"), "--size big"),
        (("export", "--target", "generic", "-o", "DIR", "--size", "0x64"), "--size 0x64"),
    ],
)
def test_usage_errors_are_one_line(arguments: Arguments, said: str, tmp_path: Path) -> None:
    assert said in refusal(*arguments, cwd=tmp_path)
    assert not files_below(tmp_path)


def test_a_forked_command_says_what_a_fresh_one_says(tiny_bundle: Path, tmp_path: Path) -> None:
    """Most tests take forked ones, which are quick."""
    for arguments in (("targets",), ("inspect", tiny_bundle), ("export", tmp_path, "--target", "generic", "-o", "x")):
        fresh, forked = (call(*arguments, cwd=tmp_path, fresh=fresh) for fresh in (True, False))
        assert (forked.returncode, forked.stdout, forked.stderr) == (fresh.returncode, fresh.stdout, fresh.stderr)


# Reading.


def test_tables_are_whole_where_the_output_is_no_terminal(tiny_bundle: Path) -> None:
    for arguments in (("targets",), ("inspect", tiny_bundle)):
        done = call(*arguments)
        assert done.returncode == 0 and "…" not in done.stdout, done.stdout
    assert "text_encoder.last_hidden_state" in done.stdout


def test_inspect_shows_a_model(tiny_checkpoint: Path) -> None:
    done = call("inspect", tiny_checkpoint)
    assert done.returncode == 0 and not done.stderr
    for word in ("text_encoder", "vae_decoder", "float32", "[1, 4, 16, 16]", "encoder_hidden_states"):
        assert word in done.stdout


@pytest.mark.parametrize("command", ["inspect", "verify", "generate"])
def test_a_folder_that_is_no_bundle(command: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    prompt = ("apple", "-o", tmp_path / "out.png") if command == "generate" else ()
    said = "is not a diffusers checkpoint" if command == "inspect" else "is not a bundle"
    assert said in refusal(command, tmp_path / "folder", *prompt)
    assert str(tmp_path / "absent") in refusal(command, tmp_path / "absent", *prompt)
    assert not files_below(tmp_path)


def test_a_corrupt_bundle_is_a_failed_proof(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    weights = bundle / "onnx/unet/model.onnx_data"
    content = bytearray(weights.read_bytes())
    content[100] ^= 1
    weights.write_bytes(content)
    for arguments in (("inspect", bundle), ("verify", bundle), ("generate", bundle, "apple", "-o", tmp_path / "a.png")):
        done = call(*arguments)
        assert done.returncode == 1 and "model.onnx_data is corrupt" in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_verify_passes(tiny_bundle: Path) -> None:
    done = call("verify", tiny_bundle)
    assert done.returncode == 0 and "passed all" in done.stdout and "FAILED" not in done.stdout and not done.stderr


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (Case(), "the shape of text_encoder.last_hidden_state is [77, 16] in the model and [77, 32] in the bundle"),
        (
            Case(unet=WIDE, vae=THREE, text={"hidden_size": 32}),
            "unet.sample is [4, 8, 8] in the model and [4, 16, 16] in the bundle",
        ),
    ],
    ids=["states", "scale"],
)
def test_verify_against_another_model_is_refused_before_it_draws(
    case: Case, said: str, make: Callable[..., Model], tiny_bundle: Path
) -> None:
    other = make(case).folder
    line = refusal("verify", tiny_bundle, "--against", other)
    assert f"{other} is not the model of {tiny_bundle}: " in line and said in line


# Drawing.


def test_generate_draws(tiny_bundle: Path, tmp_path: Path) -> None:
    done = call("generate", tiny_bundle, "red apple", "--seed", "42", "--steps", "2", "-o", tmp_path / "a.png")
    assert done.returncode == 0 and not done.stderr
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (32, 32)
        assert picture.info["prompt"] == "red apple" and picture.info["seed"] == "42" and picture.info["steps"] == "2"
        assert picture.info["bundle_id"] == json.loads((tiny_bundle / "manifest.json").read_text())["bundle_id"]
    again = call(
        "generate", tiny_bundle, "red apple", "--steps", "2", "--image", tmp_path / "a.png", "-o", tmp_path / "b.png"
    )
    assert again.returncode == 0 and (tmp_path / "b.png").is_file()


def test_generate_says_what_was_cut_off(tiny_bundle: Path, tmp_path: Path) -> None:
    done = call("generate", tiny_bundle, "apple " * 75 + "pear", "--steps", "1", "-o", tmp_path / "a.png")
    assert done.returncode == 0 and "the prompt is too long: 'pear' was cut off" in done.stderr
    assert "negative" not in done.stderr
    assert "pndm in 1 step begins at timestep 1, where a picture is almost finished" in done.stderr
    options = ("--negative-prompt", "plum " * 75 + "Fig", "--steps", "1", "-o", tmp_path / "a.png")
    done = call("generate", tiny_bundle, "apple", *options)
    assert "the negative prompt is too long: 'Fig' was cut off" in done.stderr and "the prompt" not in done.stderr
    done = call("generate", tiny_bundle, "apple", *options, "--guidance", "1")
    assert done.returncode == 0 and "cut off" not in done.stderr, "without guidance it is not used"


def test_compare_says_what_was_cut_off(tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """Once where both cut it alike: a bundle, and a model by its own tokenizer."""
    (tmp_path / "prompts.txt").write_text("apple " * 75 + "Pear\nshort\n")
    options = ("--prompts", tmp_path / "prompts.txt", "--steps", "1", "-o", tmp_path / "out.html")
    done = call("compare", tiny_checkpoint, tiny_bundle, *options)
    assert done.returncode == 0 and done.stderr.count("is too long: 'Pear' was cut off") == 1
    assert done.stderr.count("cut off") == 1 and "'Pear' was cut off" in (tmp_path / "out.json").read_text()
    assert "was cut off" in (tmp_path / "out.html").read_text()


def test_an_empty_prompt_is_drawn(tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """As diffusers draws it: from the beginning and the end token alone. Also of a picture."""
    out = tmp_path / "a.png"
    for prompt in ("", " "):
        assert call("generate", tiny_bundle, prompt, "--seed", "3", "--steps", "2", "-o", out).returncode == 0
        pipeline = StableDiffusionPipeline.from_pretrained(tiny_checkpoint)
        generator = torch.Generator().manual_seed(3)
        theirs = pipeline(prompt, num_inference_steps=2, generator=generator).images[0]
        assert image_psnr_db(np.asarray(theirs), np.asarray(Image.open(out))) > 50
    done = call("generate", tiny_bundle, "", "--image", out, "--steps", "2", "-o", tmp_path / "b.png")
    assert done.returncode == 0 and (tmp_path / "b.png").is_file()


def test_generate_refuses_what_it_cannot_draw(tiny_bundle: Path, tmp_path: Path) -> None:
    def refused(*options: str | Path) -> str:
        return refusal("generate", tiny_bundle, "apple", "-o", tmp_path / "out.png", *options)

    assert "did you mean dpmpp_2m?" in refused("--sampler", "dpmp_2m")
    assert "has no tflite artifacts" in refused("--format", "tflite")
    assert "tables of 1 to 50 steps" in refused("--steps", "1001")
    assert "out of range" in refused("--seed", str(2**64))
    assert "No such file" in refused("--image", tmp_path / "absent.png")
    (tmp_path / "text.png").write_text("no picture")
    assert "cannot be read as a picture" in refused("--image", tmp_path / "text.png")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:90])
    assert "cut.png" in refused("--image", tmp_path / "cut.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "start.png")
    assert "strength 0.0" in refused("--image", tmp_path / "start.png", "--strength", "0")
    assert not (tmp_path / "out.png").exists()


def test_generate_refuses_where_it_cannot_write(tmp_path: Path) -> None:
    """Before any work: the bundle is not even looked at."""
    (tmp_path / "folder.png").mkdir()
    for output, said in (
        (tmp_path / "missing/out.png", "there is no folder"),
        (tmp_path / "folder.png", "is a folder"),
        (tmp_path / "out.jpg", "name it out.png"),
        (Path("/proc/out.png"), "cannot write /proc/out.png"),
    ):
        assert said in refusal("generate", tmp_path, "apple", "-o", output)


def test_generate_writes_no_picture_that_is_not_finite(tiny_bundle: Path, tmp_path: Path) -> None:
    """As of a prompt that overflows, in a bundle whose proof passed: it would be black."""
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    weights = bundle / "onnx/vae_decoder/model.onnx_data"
    weights.write_bytes(np.full(weights.stat().st_size // 4, np.nan, np.float32).tobytes())
    seal(bundle, open_bundle(tiny_bundle).manifest)
    done = call("generate", bundle, "red apple", "--steps", "1", "-o", tmp_path / "out.png")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "the picture of 'red apple' contains NaN or infinity, first at index [0, 0, 0, 0]" in done.stderr
    assert not (tmp_path / "out.png").exists()


def test_generate_on_a_full_disk(tiny_bundle: Path, tmp_path: Path) -> None:
    said = refusal("generate", tiny_bundle, "apple", "--steps", "1", "-o", tmp_path / "out.png", file_size=100)
    assert "cannot write" in said and "File too large" in said
    assert not files_below(tmp_path)


# Exporting.


def test_export_refuses_what_is_no_checkpoint(tmp_path: Path) -> None:
    def refused(model: str | Path) -> str:
        return refusal("export", model, "--target", "generic", "-o", tmp_path / "out")

    (tmp_path / "folder").mkdir()
    (tmp_path / "model.ckpt").write_bytes(b"")
    assert "is not a diffusers checkpoint" in refused(tmp_path / "folder")
    assert "is a pickle" in refused(tmp_path / "model.ckpt")
    assert "no folder" in refused(tmp_path / "absent")
    assert "hub" in refused("nobody/nothing")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_export_refuses_weights_that_do_not_fit(checkpoint: Path, tmp_path: Path) -> None:
    file = checkpoint / "unet/diffusion_pytorch_model.safetensors"
    whole = safetensors.numpy.load_file(file)
    short = {name: array for name, array in whole.items() if name != "conv_in.bias"}
    safetensors.numpy.save_file(short, file)
    out = tmp_path / "out"
    assert "1 missing: unet.conv_in.bias" in refusal("export", checkpoint, "--target", "generic", "-o", out)
    safetensors.numpy.save_file({**whole, "conv_in.bias": np.zeros(3, np.float32)}, file)
    said = refusal("export", checkpoint, "--target", "generic", "-o", out)
    assert "unet.conv_in.bias is [3] and should be [16]" in said
    assert not out.exists()


def test_export_refuses_unknown_choices(tmp_path: Path) -> None:
    def refused(*options: str) -> str:
        return refusal("export", "-o", tmp_path / "out", *options)

    assert "did you mean pixel-8?" in refused("--target", "pixel-9")
    assert "did you mean fp16" in refused("--target", "generic", "--recipe", "fp61")
    assert "choose one of fp32, fp16" in refused("--target", "generic", "--recipe", "tiny")
    assert "did you mean ort?" in refused("--target", "generic", "--profile", "orf")
    assert "did you mean onnx?" in refused("--target", "generic", "--format", "onx")
    assert not files_below(tmp_path)


def test_export_refuses_a_size_that_does_not_fit(tiny_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = refusal("export", tiny_checkpoint, "--target", "generic", "-o", out, "--size", "33x32")
    assert "multiples of 2" in said and not out.exists()


def test_export_refuses_a_place_that_is_not_its_own(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("")
    for place, said in (
        (tmp_path / "mine", "exists and is not a folder that an export wrote"),
        (tmp_path / "file", "exists and is a file or a link"),
        (tmp_path / "file/out", "cannot write to"),
        (Path("/proc/out"), "cannot write to"),
    ):
        assert said in refusal("export", tiny_checkpoint, "--target", "generic", "-o", place)
    assert files_below(tmp_path) == ["file", "mine/thesis.txt"]


def test_export_where_files_may_not_grow(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """ulimit -f lets small files be written and cuts the large ones."""
    said = refusal("export", tiny_checkpoint, "--target", "generic", "-o", tmp_path / "out", file_size=1_000_000)
    assert "ulimit -f" in said
    assert list(tmp_path.iterdir()) == []
