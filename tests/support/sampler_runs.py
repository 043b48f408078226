"""A sampler's table and the scheduler of diffusers that it equals, run side by side on a fixed model."""

from inspect import signature
from typing import Any

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray

from pocketdiffusion.runtime.noise import TorchRandom
from pocketdiffusion.runtime.sampling.samplers import diffusers_class, step_table
from pocketdiffusion.runtime.sampling.schedule import read_schedule
from pocketdiffusion.runtime.sampling.step_table import StepTable, advance

Latents = NDArray[np.float32]

SHAPE = (1, 4, 8, 8)
COUNTS = (1, 2, 5, 10, 20, 50)
BASE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000}
SD15 = {**BASE, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1, "clip_sample": False}
ZERO_SNR = {**SD15, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
WEIGHTS = TorchRandom(1).randn((256, 256)) / np.float32(10)
OFFSET = TorchRandom(2).randn((256,))
IMAGE = TorchRandom(3).randn(SHAPE)


def model(x: Latents, timestep: float) -> Latents:
    """A fixed nonlinear map that depends on the latents and on the timestep."""
    values = np.tanh(x.reshape(-1) @ WEIGHTS + OFFSET * np.float32(timestep / 300))
    return np.asarray(values * np.float32(1.3), np.float32).reshape(SHAPE)


def draw(table: StepTable, seed: int) -> Latents:
    random = TorchRandom(seed)
    noise = random.randn(SHAPE)
    if table.start:
        x = np.float32(table.signal_scale) * IMAGE + np.float32(table.noise_scale) * noise
    else:
        x = np.float32(table.init_noise_sigma) * noise
    history: tuple[Latents, ...] = ()
    for row in table.rows:
        output = model(np.float32(row.input_scale) * x, row.timestep)
        x, history = advance(row, x, output, history, random.randn(SHAPE) if row.c else None)
    return x


def draw_by_diffusers(name: str, config: dict[str, Any], steps: int, start: int, seed: int) -> Latents:
    """As StableDiffusionPipeline does where `start` is 0, else as StableDiffusionImg2ImgPipeline."""
    kind, fixed = diffusers_class(name)
    scheduler = getattr(diffusers, kind).from_config({**config, **fixed})
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(SHAPE, generator=generator)
    timesteps = scheduler.timesteps[start:]
    if start:
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(start)
        x = scheduler.add_noise(torch.from_numpy(IMAGE), noise, timesteps[:1])
    else:
        x = noise * scheduler.init_noise_sigma
    options = {"generator": generator} if "generator" in signature(scheduler.step).parameters else {}
    for timestep in timesteps:
        scaled = scheduler.scale_model_input(x, timestep)
        output = torch.from_numpy(model(scaled.numpy(), timestep.item()))
        x = scheduler.step(output, timestep, x, **options).prev_sample
    return np.asarray(x.numpy())


def compare(name: str, config: dict[str, Any], steps: int, start: int = 0) -> float:
    """The largest difference of the final latents, over their standard deviation."""
    table = step_table(name, read_schedule(config), steps, start)
    expected = draw_by_diffusers(name, config, steps, start, seed=7)
    return float(np.abs(draw(table, 7) - expected).max() / expected.std())


def check_equal(name: str, config: dict[str, Any], starts: bool = True) -> None:
    for steps in COUNTS:
        for start in {0, 1, 2, steps // 2, steps - 1} if starts else {0}:
            if start < steps:
                error = compare(name, config, steps, start)
                assert error < 1e-4, f"{steps} steps from {start}: {error:.1e}"
