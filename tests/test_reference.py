"""The reference is diffusers' own pipeline: the same pictures and its own float32, whatever we read."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from support.command import refusal
from support.family_cases import MICRO, write_checkpoint

from pocketdiffusion.choices import ExportOptions
from pocketdiffusion.export.families import components
from pocketdiffusion.export.families.parts import clip_text, unet2d
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.export.reference.array_store import ArrayStore
from pocketdiffusion.export.reference.record import Request, record
from pocketdiffusion.export.reference.streamed_weights import stream_weights
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.verify.check import Scope
from pocketdiffusion.runtime.verify.controls import ALL, PROMPT, SEED, STEPS, compare_with, medians
from pocketdiffusion.runtime.verify.metrics import image_psnr_db
from pocketdiffusion.runtime.verify.pictures import PictureReport, judge_pictures
from pocketdiffusion.runtime.verify.recording import guided_outputs, recorded_steps
from pocketdiffusion.runtime.verify.tolerances import control_floor

REQUEST = Request("a red apple", "blurry", seed=5, steps=3, guidance=5.0)


@pytest.fixture
def model(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of `tiny_checkpoint` that a test may change."""
    return shutil.copytree(tiny_checkpoint, tmp_path / "model")


def by_diffusers(folder: Path, request: Request, output_type: str = "pil") -> np.ndarray:
    """What diffusers draws, without any of our code: the picture, or with "latent" all last latents."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline(
        request.prompt,
        negative_prompt=request.negative_prompt,
        num_inference_steps=request.steps,
        guidance_scale=request.guidance,
        generator=torch.Generator().manual_seed(request.seed),
        output_type=output_type,
    )
    return np.asarray(drawn.images if output_type == "latent" else drawn.images[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_recorded_is_what_diffusers_draws(tiny_checkpoint: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    """To the byte, from weights of any storage."""
    folder = tiny_checkpoint
    if dtype != torch.float32:
        pipeline = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=dtype, safety_checker=None)
        folder = tmp_path / "model"
        pipeline.save_pretrained(folder)
        shutil.copytree(tiny_checkpoint / "tokenizer", folder / "tokenizer", dirs_exist_ok=True)
    checkpoint = open_checkpoint(str(folder), progress=lambda line: None)
    (trajectory,) = record(checkpoint, components(checkpoint), [REQUEST])
    assert np.array_equal(trajectory.picture, by_diffusers(folder, REQUEST))
    calls = trajectory.calls["unet"]
    steps = len(recorded_steps(trajectory))
    assert steps == 4 and trajectory.sampler == "pndm" and len(calls) == 8
    assert [(case.half, case.step) for case in calls[:3]] == [("negative", 0), ("positive", 0), ("negative", 1)]
    assert calls[0].outputs["out_sample"].shape == (1, 4, 16, 16) and trajectory.latents.shape == (steps + 1, 4, 16, 16)
    negative, positive = (calls[i].outputs["out_sample"] for i in (0, 1))
    guided = negative + np.float32(5) * (positive - negative)
    assert np.isfinite(guided).all() and np.array_equal(guided_outputs(trajectory)[0], guided)
    ids = [case.inputs["input_ids"] for case in trajectory.calls["text_encoder"]]
    assert not np.array_equal(ids[0], ids[1])


def test_weights_stay_where_they_are_stored() -> None:
    """Outside of its own forward a module holds nothing but NaN of four bytes, and who computes past it gets NaN."""
    linear = torch.nn.Linear(300, 200)
    module = torch.nn.Sequential(linear, torch.nn.LayerNorm(200)).half().requires_grad_(False)
    wanted = torch.nn.Sequential(torch.nn.Linear(300, 200), torch.nn.LayerNorm(200))
    wanted.load_state_dict({name: tensor.float() for name, tensor in module.state_dict().items()})
    stream_weights(module)
    x = torch.randn(2, 300, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(module(x), wanted(x))
        assert torch.nn.functional.linear(x, linear.weight).isnan().all()
    for parameter in module.parameters():
        assert parameter.dtype == torch.float32 and parameter.untyped_storage().nbytes() == 4


def test_an_array_is_on_the_disk_once() -> None:
    """And the file is mapped once for all arrays of a drawing: a hundred drawings do not run out of descriptors."""
    before = len(os.listdir("/proc/self/fd"))
    store = ArrayStore()
    ones, numbers = np.ones((3, 5), np.float32), np.arange(15, dtype=np.int32).reshape(3, 5)
    first = store.put({"a": ones, "b": ones.copy(), "c": numbers, "empty": np.zeros((0, 4), np.float32)})
    again = store.put({"d": ones.copy()})
    assert first["a"] is first["b"] is again["d"] and not first["a"].flags.writeable
    assert first["c"].ctypes.data % 64 == 0 and first["c"].dtype == np.int32
    assert np.array_equal(first["a"], ones) and np.array_equal(first["c"], numbers) and first["empty"].shape == (0, 4)
    others = [store.put({name: np.full(7, n + k / 10) for k, name in enumerate("uvw")}) for n in range(20)]
    assert others[7]["v"][0] == 7.1
    assert len(os.listdir("/proc/self/fd")) - before <= 22


def test_shards_of_two_storages_are_widened_and_not_rounded(model: Path) -> None:
    """By the files that diffusers reads: an older file beside them is all float16."""
    unet = model / "unet"
    tensors = load_file(unet / "diffusion_pytorch_model.safetensors")
    save_file(
        {name: tensor.half() for name, tensor in tensors.items()},
        unet / "diffusion_pytorch_model.safetensors",
        {"format": "pt"},
    )
    placed = {name: f"diffusion_pytorch_model-0000{n % 2 + 1}-of-00002.safetensors" for n, name in enumerate(tensors)}
    for number, file in enumerate(sorted(set(placed.values()))):
        dtype = (torch.float16, torch.float32)[number]
        save_file({n: tensors[n].to(dtype) for n in placed if placed[n] == file}, unet / file, {"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": placed}
    (unet / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    checkpoint = open_checkpoint(str(model), progress=lambda line: None)
    (trajectory,) = record(checkpoint, components(checkpoint), [REQUEST])
    assert np.array_equal(trajectory.latents[-1:], by_diffusers(model, REQUEST, output_type="latent"))


def test_what_text_to_image_cannot_draw_is_refused(micro_checkpoint: Path, tmp_path: Path) -> None:
    model = write_checkpoint(micro_checkpoint, tmp_path / "made", replace(MICRO, unet={**MICRO.unet, "in_channels": 9}))
    said = refusal("export", model.folder, "--target", "generic", "--format", "onnx", "-o", tmp_path / "out")
    assert "its unet has 9 input channels, for inpainting" in said


def test_a_seed_that_is_none_is_one_line(tiny_checkpoint: Path) -> None:
    checkpoint = open_checkpoint(str(tiny_checkpoint), progress=lambda line: None)
    with pytest.raises(UserError, match="seed .* is out of range"):
        record(checkpoint, components(checkpoint), [replace(REQUEST, seed=2**64)])


def test_controls_are_drawn_by_the_original(micro_checkpoint: Path) -> None:
    """Beside its own picture: another seed, one step less, and the prompt without its last word."""
    checkpoint = open_checkpoint(str(micro_checkpoint), progress=lambda line: None)
    (trajectory,) = record(checkpoint, components(checkpoint), [REQUEST], controls=ALL)
    others = {
        SEED: replace(REQUEST, seed=REQUEST.seed ^ 1),
        STEPS: replace(REQUEST, steps=2),
        PROMPT: replace(REQUEST, prompt="a red"),
    }
    wanted = {
        name: image_psnr_db(trajectory.picture, by_diffusers(micro_checkpoint, other)) for name, other in others.items()
    }
    assert trajectory.controls == pytest.approx(wanted) and len(set(wanted.values())) == 3


def test_what_a_distance_is_beside_its_controls() -> None:
    controls = [
        {SEED: 40.0, STEPS: 20.0, PROMPT: inf},
        {SEED: 30.0, STEPS: 25.0, PROMPT: inf},
        {SEED: 35.0, STEPS: 22.0},
    ]
    assert medians(controls) == {SEED: 35.0, STEPS: 22.0, PROMPT: inf}
    nearer = "closer to the reference than the reference's own picture with"
    no_nearer = "not closer than the reference's own picture with"
    assert compare_with(34.0, medians(controls)) == (
        f"{nearer} one step less (22.0 dB), but {no_nearer} another seed (35.0 dB)"
    )
    assert compare_with(inf, medians(controls)) == f"{nearer} another seed (35.0 dB) and one step less (22.0 dB)"
    assert compare_with(inf, {}) == "without controls"
    assert control_floor(controls) == 35.0 and control_floor([]) == -inf


def test_a_picture_that_is_no_nearer_than_another_seed_fails() -> None:
    """In fp32 and fp16; a lossy recipe has floors of its own, and it is said."""
    picture = np.zeros((8, 8, 3), np.uint8)
    drawn = [PictureReport("onnx", "a", 60.0, 1.0, (90.0,), picture)]
    fp16, lossy = ([SimpleNamespace(picture_floors_db=floors, storage="float16")] for floors in (None, (20.0, 10.0)))
    for graphs, passes in ((fp16, False), (lossy, True)):
        median, _ = judge_pictures(drawn, graphs, Scope("onnx"), [{SEED: 61.0, STEPS: 20.0}])  # type: ignore[arg-type]
        assert median.passed == passes
    assert all(v.passed for v in judge_pictures(drawn, fp16, Scope("onnx"), [{SEED: 59.0}]))  # type: ignore[arg-type]


PROBE = """
import sys
{first}
from pocketdiffusion.export.reference.float32 import check_float32
from pocketdiffusion.runtime.errors import UserError
import torch
x = torch.full((2, 64, 16, 16), 1 + 2.0**-12)
exact = torch.nn.functional.conv2d(x, torch.ones(64, 64, 3, 3), padding=1)[0, 0, 5, 5].item() / 576 == 1 + 2.0**-12
try:
    check_float32()
    print(exact, "float32")
except UserError as error:
    print(exact, error)
"""


def test_the_reference_is_float32_whatever_the_environment_says() -> None:
    """Where our code comes first, it pins it; where torch was imported before, the rounding is found out, on
    processors that round at all."""

    def found(first: str) -> str:
        environment = {**os.environ, "ONEDNN_DEFAULT_FPMATH_MODE": "BF16", "DNNL_DEFAULT_FPMATH_MODE": "BF16"}
        code = PROBE.format(first=first)
        return subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert found("import pocketdiffusion.export") == "True float32"
    late = found("import torch")
    assert late == "True float32" or late.startswith("False torch computes a convolution with less than float32")


def test_a_fault_in_our_own_reading_fails_the_export(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exporter and runtime agree with each other; the reference reads for itself. Ignored: a key of the UNet's
    configuration and the VAE's scaling factor; the text encoder's second layer is given the weights of the first."""
    sound_unet, sound_names = unet2d.read_config, clip_text.modern_names

    def ignoring(part: str, config: Any) -> dict[str, Any]:
        return {**sound_unet(part, config), "flip_sin_to_cos": False}

    def other_layer(part: str, stored: Any) -> dict[str, Any]:
        refs = sound_names(part, stored)
        return {name: refs[name.replace("layers.1.mlp", "layers.0.mlp")] for name in refs}

    monkeypatch.setattr(unet2d, "read_config", ignoring)
    monkeypatch.setattr(clip_text, "modern_names", other_layer)
    from pocketdiffusion import build

    with pytest.raises(ProofError):
        build.export(str(tiny_checkpoint), "generic", tmp_path / "out", ExportOptions(format="onnx"))
    proof = json.loads((tmp_path / "out.failed/proof.json").read_text())
    failed = {verdict["subject"] for verdict in proof["verdicts"] if not verdict["passed"]}
    assert {"unet.out_sample", "text_encoder.last_hidden_state", "pictures.median"} <= failed
    assert "vae_decoder.sample" not in failed
