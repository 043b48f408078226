"""A sampler that no file of the product knows: DDPM. It is a checkpoint's own, is exported, judged and drawn with, by
this file alone."""

from collections.abc import Iterator
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from support.family_cases import MICRO, edit_json, write_checkpoint
from support.toys import registered

from pocketdiffusion.build import export
from pocketdiffusion.choices import ExportOptions
from pocketdiffusion.runtime.bundle.bundle import Bundle, open_bundle
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.pipeline import draw
from pocketdiffusion.runtime.sampling import samplers
from pocketdiffusion.runtime.sampling.schedule import NoiseSchedule, check_start, select_timesteps
from pocketdiffusion.runtime.sampling.step_table import Step, StepTable
from pocketdiffusion.runtime.verify.gate import judge
from pocketdiffusion.runtime.verify.golden import read_golden
from pocketdiffusion.runtime.verify.metrics import image_psnr_db

pytestmark = pytest.mark.slow

# The sampler: Ho et al., arXiv 2006.11239, equations 6 and 7, with the variance of the posterior.

DIFFUSERS: tuple[str, dict[str, Any]] = (
    "DDPMScheduler",
    {"clip_sample": False, "thresholding": False, "variance_type": "fixed_small"},
)


def table(schedule: NoiseSchedule, steps: int, start: int = 0) -> StepTable:
    """One call a step, and noise after each."""
    if schedule.prediction_type != "epsilon":
        raise UserError(f"toy_ddpm takes epsilon, not {schedule.prediction_type}")
    timesteps = select_timesteps(schedule, steps, "leading").round().astype(int).tolist()
    check_start(start, len(timesteps))
    alphas = schedule.alphas_cumprod.astype(float).tolist()
    rows = []
    for timestep, before in list(zip(timesteps, [*timesteps[1:], -1], strict=True))[start:]:
        alpha, to = alphas[timestep], alphas[before] if before >= 0 else 1.0
        beta = 1 - alpha / to
        clean, kept = sqrt(to) * beta / (1 - alpha), sqrt(alpha / to) * (1 - to) / (1 - alpha)
        noise = sqrt(max((1 - to) / (1 - alpha) * beta, 1e-20)) if timestep > 0 else 0.0
        a, b = kept + clean / sqrt(alpha), -clean * sqrt(1 - alpha) / sqrt(alpha)
        rows.append(Step(float(timestep), 1.0, 0.0, 1.0, a, (b,), noise))
    alpha = alphas[timesteps[start]]
    return StepTable("toy_ddpm", "epsilon", steps, start, 1.0, sqrt(alpha), sqrt(1 - alpha), tuple(rows))


# What the product does with it.


@pytest.fixture(scope="module", autouse=True)
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with registered(samplers, "toy_ddpm", f"from {__name__} import *\n", tmp_path_factory.mktemp("samplers")):
        yield


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The micro checkpoint, whose own scheduler is DDPM's."""
    folder = write_checkpoint(tiny_checkpoint, tmp_path_factory.mktemp("toy") / "model", MICRO).folder
    edit_json(folder / "model_index.json", scheduler=["diffusers", "DDPMScheduler"])
    edit_json(folder / "scheduler/scheduler_config.json", _class_name="DDPMScheduler")
    return folder


@pytest.fixture(scope="module")
def bundle(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(
        str(model), "generic", tmp_path_factory.mktemp("toy") / "bundle", ExportOptions(format="onnx", recipe="fp32")
    )


def test_it_is_the_checkpoints_own_and_is_judged(bundle: Bundle) -> None:
    again = open_bundle(bundle.folder)
    assert again.manifest.scheduler.default_sampler == "toy_ddpm" and again.manifest.scheduler.replaced is None
    verdicts, _ = judge(again, read_golden(again)[:1])
    assert all(verdict.passed for verdict in verdicts)
    assert "sampler" in {verdict.subject for verdict in verdicts}


def test_it_draws_what_diffusers_draws(bundle: Bundle, model: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(7)
    (drawn,) = pipeline("red apple", num_inference_steps=6, guidance_scale=5.0, generator=generator).images
    ours = draw(bundle, "red apple", steps=6, guidance=5.0, seed=7)
    assert image_psnr_db(np.asarray(drawn), ours) > 55
    other = draw(bundle, "red apple", steps=6, guidance=5.0, seed=7, sampler="ddim")
    assert image_psnr_db(np.asarray(drawn), other) < 55  # which adds no noise; euler_ancestral draws the same picture


def test_it_takes_the_place_of_another(micro_checkpoint: Path, tmp_path: Path) -> None:
    """Of a checkpoint whose own scheduler is PNDM."""
    made = export(
        str(micro_checkpoint),
        "generic",
        tmp_path / "out",
        ExportOptions(format="onnx", recipe="fp32", sampler="toy_ddpm"),
    )
    scheduler = made.manifest.scheduler
    assert (scheduler.default_sampler, scheduler.replaced) == ("toy_ddpm", "PNDMScheduler")
