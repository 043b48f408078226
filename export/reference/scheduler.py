"""Check on numbers, before anything is drawn, that a sampler here computes the same latents as the reference's
scheduler."""

from collections.abc import Iterator
from copy import deepcopy
from inspect import signature
from math import isfinite
from typing import Any

import diffusers
import numpy as np
import torch

from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.families import find_family, scheduler_config
from pocketdiffusion.export.reference.pipeline import Pipeline
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.noise import TorchRandom
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.sampling.samplers import default_sampler, diffusers_class, sampler_names, step_table
from pocketdiffusion.runtime.sampling.schedule import NoiseSchedule, read_schedule
from pocketdiffusion.runtime.sampling.scheduler_settings import PLAIN
from pocketdiffusion.runtime.sampling.step_table import advance
from pocketdiffusion.runtime.verify.metrics import psnr_db

COUNTS = (10, 25)  # numbers of steps that are compared: some settings matter only below 15 steps
NEAR_DB = 80.0  # equal samplers have over 120 dB in float32, another solver under 40
SHAPE = (1, 4, 2, 2)


def set_sampler(checkpoint: Checkpoint, pipeline: Pipeline) -> str:
    """Return the name of the sampler that computes the same as the pipeline's scheduler. If the checkpoint was opened
    with a sampler, put its scheduler into the pipeline first.

    Raise UserError, with advice, if no sampler here computes the same.
    """
    config = scheduler_config(checkpoint)
    if checkpoint.sampler is not None:
        name, settings = diffusers_class(checkpoint.sampler)
        pipeline.scheduler = getattr(diffusers, name).from_config(config, **settings)
    sampler = checkpoint.sampler or default_sampler(config)
    schedule = read_schedule(config)
    try:
        worst = min(_agreement(pipeline.scheduler, sampler, schedule, steps) for steps in COUNTS)
    except UserError:
        raise
    except Exception as error:  # a scheduler raises exceptions of any class at settings that it does not support
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{_title(checkpoint, pipeline)} cannot sample with it ({reason[:200]}); {_advice()}") from None
    if not worst >= NEAR_DB:
        difference = (
            f"agrees only at {worst:.0f} dB PSNR with"
            if isfinite(worst)
            else "calls the UNet a different number of times than"
        )
        found = f"{difference} {sampler}, the nearest sampler here"
        raise UserError(f"{_title(checkpoint, pipeline)} {found}; {_advice()}")
    return sampler


def is_own_scheduler(checkpoint: Checkpoint, sampler: str) -> bool:
    """Return True if the checkpoint's own scheduler has the class and the settings of `sampler`.

    Raise UserError for an unknown name.
    """
    name, settings = diffusers_class(sampler)
    if checkpoint.model_index["scheduler"][1] != name:
        return False
    parameters = signature(getattr(diffusers, name).__init__).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    own = find_family(checkpoint).scheduler_config({**defaults, **checkpoint.scheduler})
    put = {**own, **{key: defaults[key] for key in PLAIN if key in defaults}, **settings}
    return all(own[key] == put[key] for key in defaults)


def _agreement(scheduler: Any, sampler: str, schedule: NoiseSchedule, steps: int) -> float:
    """Return the least PSNR (dB) over the steps of our latents, 16 values, against the scheduler's, for random outputs;
    -inf if the numbers of calls differ."""
    theirs, ours = list(_theirs(deepcopy(scheduler), steps)), list(_ours(sampler, schedule, steps))
    if len(theirs) != len(ours):
        return float("-inf")
    worst = float("inf")
    for reference, candidate in zip(theirs, ours, strict=True):
        for expected, found in zip(reference, candidate, strict=True):
            worst = min(worst, psnr_db(expected, found, max(float(np.abs(expected).max()), 1e-6)))
    return worst


def _outputs(number: int) -> Array:
    return np.random.default_rng(number).standard_normal(SHAPE).astype(np.float32)


def _theirs(scheduler: Any, steps: int) -> Iterator[tuple[Array, Array, Array]]:
    """Yield (timestep, input of the UNet, latents after the step) of each step of diffusers' scheduler."""
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(7)
    options = {"generator": generator} if "generator" in signature(scheduler.step).parameters else {}
    latents = torch.randn(SHAPE, generator=generator) * scheduler.init_noise_sigma
    for number, timestep in enumerate(scheduler.timesteps):
        scaled = scheduler.scale_model_input(latents, timestep)
        latents = scheduler.step(torch.from_numpy(_outputs(number)), timestep, latents, **options).prev_sample
        yield np.array([float(timestep)], np.float32), scaled.numpy(), latents.numpy()


def _ours(sampler: str, schedule: NoiseSchedule, steps: int) -> Iterator[tuple[Array, Array, Array]]:
    table = step_table(sampler, schedule, steps)
    random = TorchRandom(7)
    latents, history = random.randn(SHAPE) * np.float32(table.init_noise_sigma), ()
    for number, row in enumerate(table.rows):
        scaled = latents * np.float32(row.input_scale)
        noise = random.randn(SHAPE) if row.c else None
        latents, history = advance(row, latents, _outputs(number), history, noise)  # type: ignore[assignment]
        yield np.array([row.timestep], np.float32), scaled, latents


def _title(checkpoint: Checkpoint, pipeline: Pipeline) -> str:
    explicit = {key: value for key, value in checkpoint.scheduler.items() if not key.startswith("_")}
    shown = ("algorithm_type", "solver_order", "solver_type", "timestep_spacing", "skip_prk_steps", "prediction_type")
    settings = ", ".join(f"{key} {explicit[key]}" for key in shown if key in explicit)
    name = type(pipeline.scheduler).__name__
    return f"{checkpoint.name}: its scheduler, {name}{f' with {settings}' if settings else ''},"


def _advice() -> str:
    return f"export with another sampler: --sampler {' or '.join(sampler_names())}"
