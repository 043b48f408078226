"""The loop against diffusers' own pipelines: the same checkpoint, prompt and seed give the same picture."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
)
from PIL import Image

from pocketdiffusion.models import emoji
from pocketdiffusion.runtime.bundle.bundle import Bundle, open_bundle
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.image import from_uint8, to_uint8
from pocketdiffusion.runtime.pipeline import draw, generate
from pocketdiffusion.runtime.verify.metrics import image_psnr_db, psnr_db

EMOJI = Path(emoji.__file__).parent
SCHEDULERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "ddim": (DDIMScheduler, {"clip_sample": False}),
    "dpmpp_2m": (DPMSolverMultistepScheduler, {}),
    "dpmpp_2m_karras": (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "euler": (EulerDiscreteScheduler, {}),
    "euler_ancestral": (EulerAncestralDiscreteScheduler, {}),
    "pndm": (PNDMScheduler, {"skip_prk_steps": True}),
}


def by_diffusers(kind: Any, checkpoint: Path, sampler: str | None, seed: int, **request: Any) -> np.ndarray:
    """What a pipeline class of diffusers draws from `checkpoint` in float32, uint8 [H, W, 3]."""
    pipeline = kind.from_pretrained(checkpoint, torch_dtype=torch.float32, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    if sampler:
        scheduler, settings = SCHEDULERS[sampler]
        pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, **settings)
    generator = torch.Generator().manual_seed(seed)
    return np.asarray(pipeline(**request, generator=generator).images[0])


@pytest.fixture(scope="module")
def tiny(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)


@pytest.mark.parametrize(
    ("prompt", "negative_prompt", "seed", "guidance"),
    [("red apple", "", 42, 5.0), ("a picture of a tiger face", "blurry", 7, 7.5), ("cactus", "", 3, 1.0)],
)
def test_the_built_in_model_draws_what_diffusers_draws(
    emoji_fp32: Bundle, prompt: str, negative_prompt: str, seed: int, guidance: float
) -> None:
    theirs = by_diffusers(
        StableDiffusionPipeline,
        EMOJI,
        None,
        seed,
        prompt=prompt,
        negative_prompt=negative_prompt,
        num_inference_steps=20,
        guidance_scale=guidance,
    )
    ours = draw(emoji_fp32, prompt, negative_prompt=negative_prompt, seed=seed, steps=20, guidance=guidance)
    assert image_psnr_db(theirs, ours) >= 50


@pytest.mark.parametrize("sampler", SCHEDULERS)
def test_each_sampler_draws_what_diffusers_draws(tiny: Bundle, tiny_checkpoint: Path, sampler: str) -> None:
    theirs = by_diffusers(
        StableDiffusionPipeline,
        tiny_checkpoint,
        sampler,
        11,
        prompt="red apple",
        num_inference_steps=8,
        guidance_scale=5.0,
    )
    ours = draw(tiny, "red apple", seed=11, steps=8, guidance=5.0, sampler=sampler)
    assert image_psnr_db(theirs, ours) >= 70


@pytest.mark.parametrize(("strength", "sampler"), [(0.6, "ddim"), (0.8, "pndm"), (1.0, "dpmpp_2m")])
def test_a_picture_is_redrawn_as_diffusers_redraws_it(
    emoji_fp32: Bundle, strength: float, sampler: str, tmp_path: Path
) -> None:
    start = draw(emoji_fp32, "red apple", seed=1, steps=4, guidance=5.0)
    theirs = by_diffusers(
        StableDiffusionImg2ImgPipeline,
        EMOJI,
        sampler,
        5,
        prompt="tomato",
        image=Image.fromarray(start),
        strength=strength,
        num_inference_steps=10,
        guidance_scale=5.0,
    )
    ours = draw(emoji_fp32, "tomato", seed=5, steps=10, guidance=5.0, sampler=sampler, image=start, strength=strength)
    assert image_psnr_db(theirs, ours) >= 50


def test_both_guidance_halves_in_one_call_are_the_two_calls(tiny: Bundle) -> None:
    one, two = (
        list(generate(tiny, "red apple", negative_prompt="grey", steps=4, batched=batched))[-1].latents
        for batched in (True, False)
    )
    assert psnr_db(two, one, float(np.abs(two).max())) > 100


def test_a_closed_batch_takes_one_half_at_a_time(emoji_fp32: Bundle) -> None:
    with pytest.raises(UserError, match="accept a batch of 1"):
        next(generate(emoji_fp32, "red apple", batched=True))


def test_each_step_is_handed_over_and_the_last_brings_the_picture(tiny: Bundle) -> None:
    drafts = list(generate(tiny, "red apple", steps=5, sampler="ddim"))
    assert [(d.step, d.steps) for d in drafts] == [(n, 5) for n in range(1, 6)]
    assert [d.timestep for d in drafts] == sorted((d.timestep for d in drafts), reverse=True)
    assert all(d.latents.shape == (1, 4, 16, 16) and d.latents.dtype == np.float32 for d in drafts)
    assert [d.picture is None for d in drafts] == [True] * 4 + [False]


def test_a_seed_is_a_picture(tiny: Bundle) -> None:
    first, again, other = (draw(tiny, "red apple", seed=seed, steps=2) for seed in (3, 3, 4))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_without_guidance_the_negative_prompt_says_nothing(tiny: Bundle) -> None:
    plain = draw(tiny, "red apple", steps=2, guidance=1.0)
    assert np.array_equal(plain, draw(tiny, "red apple", negative_prompt="grey", steps=2, guidance=1.0))
    assert not np.array_equal(plain, draw(tiny, "red apple", steps=2, guidance=3.0))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 0}, "steps must be 1 or more"),
        ({"sampler": "dpmp"}, "did you mean"),
        ({"guidance": float("nan")}, "guidance must be a finite number, not nan"),
        ({"format": "coreml"}, "has no coreml artifacts"),
        ({"image": np.zeros((8, 8, 3), np.uint8)}, r"needs uint8 \[32, 32, 3\]"),
        ({"image": np.zeros((32, 32, 3), np.float32)}, "convert it"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tiny: Bundle, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        next(generate(tiny, "red apple", **options))


def test_pictures_are_clamped_before_they_are_rounded() -> None:
    sample = np.array([-9.0, -1.0, 0.0, 1.0, 1.004, np.nan], np.float32).reshape(1, 1, 1, 6).repeat(3, axis=1)
    assert to_uint8(sample)[0, :, 0].tolist() == [0, 0, 128, 255, 255, 0]
    levels = np.arange(256, dtype=np.uint8).reshape(1, 256, 1).repeat(3, axis=2)
    assert np.array_equal(to_uint8(from_uint8(levels)), levels)
