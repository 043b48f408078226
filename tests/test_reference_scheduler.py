"""The reference draws with the checkpoint's own scheduler, as one of our samplers; any other scheduler is refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.command import call, refusal
from support.family_cases import edit_json

from pocketdiffusion.export.families import scheduler_config
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.export.original import open_model
from pocketdiffusion.export.reference.pipeline import open_pipeline
from pocketdiffusion.export.reference.scheduler import set_sampler
from pocketdiffusion.runtime.bundle.bundle import open_bundle
from pocketdiffusion.runtime.errors import UserError

SCHEDULER, INDEX = "scheduler/scheduler_config.json", "model_index.json"


@pytest.fixture
def model(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of `tiny_checkpoint` that a test may change."""
    return shutil.copytree(tiny_checkpoint, tmp_path / "model")


def edited(**settings: Any) -> Callable[[Path], None]:
    """Settings of the scheduler; None takes one away."""

    def change(folder: Path) -> None:
        config = json.loads((folder / SCHEDULER).read_text()) | settings
        (folder / SCHEDULER).write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
        if "_class_name" in settings:
            edit_json(folder / INDEX, scheduler=["diffusers", settings["_class_name"]])

    return change


def other_class_in_the_index(folder: Path) -> None:
    edit_json(folder / INDEX, scheduler=["diffusers", "DDIMScheduler"])


DPM = "DPMSolverMultistepScheduler"
DRAWN: dict[str, tuple[Callable[[Path], None], str]] = {
    "pndm without steps_offset": (edited(steps_offset=None), "pndm"),
    "pndm with steps_offset 0": (edited(steps_offset=0), "pndm"),
    "ddim without anything": (edited(_class_name="DDIMScheduler", steps_offset=None, set_alpha_to_one=None), "ddim"),
    "ddim that clips": (edited(_class_name="DDIMScheduler", clip_sample=True), "ddim"),
    "ddim, trailing, v": (
        edited(_class_name="DDIMScheduler", timestep_spacing="trailing", prediction_type="v_prediction"),
        "ddim",
    ),
    "another class in the index": (other_class_in_the_index, "ddim"),
    "euler": (edited(_class_name="EulerDiscreteScheduler"), "euler"),
    "euler, Karras": (edited(_class_name="EulerDiscreteScheduler", use_karras_sigmas=True), "euler"),
    "euler, leading": (edited(_class_name="EulerDiscreteScheduler", timestep_spacing="leading"), "euler"),
    "ancestral": (edited(_class_name="EulerAncestralDiscreteScheduler"), "euler_ancestral"),
    "dpm": (edited(_class_name=DPM), "dpmpp_2m"),
    "dpm, Karras, v": (
        edited(_class_name=DPM, use_karras_sigmas=True, prediction_type="v_prediction"),
        "dpmpp_2m_karras",
    ),
    "dpm of other last steps": (edited(_class_name=DPM, lower_order_final=False, euler_at_final=True), "dpmpp_2m"),
}


@pytest.mark.parametrize("case", DRAWN)
def test_the_scheduler_is_the_pipelines_own(model: Path, case: str) -> None:
    """With its repairs: shown on numbers, before anything is drawn."""
    change, sampler = DRAWN[case]
    change(model)
    checkpoint = open_checkpoint(str(model), progress=lambda line: None)
    assert set_sampler(checkpoint, open_pipeline(checkpoint)) == sampler


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (edited(_class_name="DEISMultistepScheduler"), "scheduler DEISMultistepScheduler"),
        (edited(_class_name="UniPCMultistepScheduler"), "scheduler UniPCMultistepScheduler"),
        (edited(_class_name="HeunDiscreteScheduler"), "scheduler HeunDiscreteScheduler"),
        (edited(_class_name="LCMScheduler"), "scheduler LCMScheduler"),
        (edited(_class_name=DPM, algorithm_type="sde-dpmsolver++"), "sde-dpmsolver"),
        (edited(_class_name=DPM, solver_order=3), "solver_order 3"),
        (edited(_class_name=DPM, solver_type="heun"), "solver_type heun"),
        (edited(skip_prk_steps=False), "PNDMScheduler"),
        (
            edited(_class_name="EulerDiscreteScheduler", timestep_type="continuous", sigma_min=0.1, sigma_max=9),
            "timest",
        ),
    ],
)
def test_a_scheduler_that_no_sampler_is_is_refused_with_the_way_out(model: Path, change: Any, said: str) -> None:
    change(model)
    checkpoint = open_checkpoint(str(model), progress=lambda line: None)
    with pytest.raises(UserError, match=said):
        set_sampler(checkpoint, open_pipeline(checkpoint))


@pytest.mark.slow
def test_another_sampler_takes_the_place_of_one_that_is_not_here(micro_checkpoint: Path, tmp_path: Path) -> None:
    """The command says how, the bundle says so, and draws what diffusers draws with that one. Who opens the model
    beside the bundle draws with it too: with its own scheduler the model is refused."""
    model = shutil.copytree(micro_checkpoint, tmp_path / "model")
    edited(_class_name="DEISMultistepScheduler", algorithm_type="deis", solver_type="logrho")(model)
    out = tmp_path / "out"
    export = ("export", model, "--target", "generic", "--format", "onnx", "-o", out)
    assert "choose another with --sampler ddim, dpmpp_2m" in refusal(*export)
    assert "did you mean euler" in refusal(*export, "--sampler", "eulr")
    assert not out.exists()
    done = call(*export, "--sampler", "euler")
    assert done.returncode == 0, done.stderr
    scheduler = open_bundle(out).manifest.scheduler
    assert (scheduler.default_sampler, scheduler.replaced) == ("euler", "DEISMultistepScheduler")
    assert "euler instead of the checkpoint's own DEISMultistepScheduler" in done.stdout
    assert "DEISMultistepScheduler" in (out / "report/report.html").read_text()
    done = call("verify", out, "--against", model)
    assert done.returncode == 0 and "passed all" in done.stdout, done.stderr
    (tmp_path / "prompts.txt").write_text("red apple\n")
    done = call("compare", model, out, "--prompts", tmp_path / "prompts.txt", "--steps", "2", "--min-psnr", "50")
    assert done.returncode == 0, done.stderr


OWN: dict[str, tuple[Callable[[Path], None], str, bool]] = {
    "pndm": (edited(), "pndm", True),
    "pndm without steps_offset": (edited(steps_offset=None), "pndm", True),
    "another class": (edited(), "ddim", False),
    "another class in the index": (other_class_in_the_index, "ddim", True),
    "ddim without anything": (edited(_class_name="DDIMScheduler", clip_sample=None), "ddim", True),
    "ddim with thresholding": (edited(_class_name="DDIMScheduler", thresholding=True), "ddim", False),
    "dpm": (edited(_class_name=DPM), "dpmpp_2m", True),
    "dpm of order 3": (edited(_class_name=DPM, solver_order=3), "dpmpp_2m", False),
    "dpm without Karras": (edited(_class_name=DPM), "dpmpp_2m_karras", False),
    "dpm, Karras": (edited(_class_name=DPM, use_karras_sigmas=True), "dpmpp_2m_karras", True),
    "none of ours": (edited(_class_name="DEISMultistepScheduler"), "dpmpp_2m", False),
}


@pytest.mark.parametrize("case", OWN)
def test_the_checkpoints_own_sampler_takes_nobodys_place(micro_checkpoint: Path, tmp_path: Path, case: str) -> None:
    """With --sampler of its own scheduler an export is the one without, and what is drawn is that sampler's."""
    change, sampler, own = OWN[case]
    model = shutil.copytree(micro_checkpoint, tmp_path / "model")
    change(model)
    checkpoint, _ = open_model(str(model), sampler=sampler)
    assert checkpoint.sampler == (None if own else sampler)
    assert set_sampler(checkpoint, open_pipeline(checkpoint)) == sampler


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m", "dpmpp_2m_karras", "euler", "euler_ancestral", "pndm"])
def test_every_sampler_can_take_the_place(model: Path, sampler: str) -> None:
    edited(_class_name=DPM, algorithm_type="sde-dpmsolver++", use_karras_sigmas=True, solver_order=3)(model)
    checkpoint = replace(open_checkpoint(str(model), progress=lambda line: None), sampler=sampler)
    assert set_sampler(checkpoint, open_pipeline(checkpoint)) == sampler


@pytest.mark.parametrize(
    ("change", "sampler"),
    [
        (edited(_class_name="UniPCMultistepScheduler", steps_offset=None), "ddim"),
        (edited(_class_name="DDIMScheduler", thresholding=True), "pndm"),
        (edited(_class_name=DPM, use_lu_lambdas=True, timestep_spacing="leading", steps_offset=None), "dpmpp_2m"),
        (edited(_class_name="EulerDiscreteScheduler", use_exponential_sigmas=True), "euler"),
    ],
)
def test_the_way_out_leads_out(model: Path, change: Any, sampler: str) -> None:
    """Also of settings that no sampler here follows, and where steps_offset is the pipeline's own."""
    change(model)
    checkpoint = open_checkpoint(str(model), progress=lambda line: None)
    with pytest.raises(UserError):
        set_sampler(checkpoint, open_pipeline(checkpoint))
    chosen = replace(checkpoint, sampler=sampler)
    assert set_sampler(chosen, open_pipeline(chosen)) == sampler


def test_a_setting_of_the_scheduler_that_we_ignore_is_found_before_anything_is_drawn(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited(_class_name="DDIMScheduler", prediction_type="v_prediction")(model)
    checkpoint = open_checkpoint(str(model), progress=lambda line: None)
    ignoring = {key: value for key, value in scheduler_config(checkpoint).items() if key != "prediction_type"}
    monkeypatch.setattr("pocketdiffusion.export.reference.scheduler.scheduler_config", lambda checkpoint: ignoring)
    with pytest.raises(UserError, match="dB PSNR with ddim"):
        set_sampler(checkpoint, open_pipeline(checkpoint))
