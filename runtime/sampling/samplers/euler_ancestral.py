"""Ancestral sampling with Euler steps: each step goes below the next sigma and adds noise up to it (k-diffusion's
sample_euler_ancestral with eta = 1).

`m` is the UNet's output. Equals diffusers' EulerAncestralDiscreteScheduler, which has neither Karras' sigmas nor
final_sigmas_type. In contrast to it, no noise is drawn for the last step, where its factor is 0.
"""

from math import sqrt
from typing import Any

import numpy as np

from pocketdiffusion.runtime.sampling.samplers.euler import init_noise_sigma, input_scale, move
from pocketdiffusion.runtime.sampling.schedule import NoiseSchedule, check_start, select_timesteps
from pocketdiffusion.runtime.sampling.sigmas import sigmas_at
from pocketdiffusion.runtime.sampling.step_table import Step, StepTable

DIFFUSERS: tuple[str, dict[str, Any]] = ("EulerAncestralDiscreteScheduler", {})


def table(schedule: NoiseSchedule, steps: int, start: int = 0) -> StepTable:
    """Return the table, with one call per step, and noise for every step except the last."""
    timesteps = select_timesteps(schedule, steps, "linspace").astype(np.float32).astype(np.float64)
    check_start(start, len(timesteps))
    sigmas = np.append(sigmas_at(schedule, timesteps), 0.0).tolist()

    rows = []
    for timestep, sigma, to in list(zip(timesteps.tolist(), sigmas, sigmas[1:], strict=False))[start:]:
        up = sqrt(to**2 * (sigma**2 - to**2) / sigma**2)
        down = to**2 / sigma  # sqrt(to**2 - up**2)
        a, b = move(schedule.prediction_type, sigma, down)
        rows.append(Step(timestep, input_scale(sigma), 0.0, 1.0, a, (b,), up))
    return StepTable(
        sampler="euler_ancestral",
        prediction_type=schedule.prediction_type,
        steps=steps,
        start=start,
        init_noise_sigma=init_noise_sigma(schedule, max(sigmas)),
        signal_scale=1.0,
        noise_scale=sigmas[start],
        rows=tuple(rows),
    )
