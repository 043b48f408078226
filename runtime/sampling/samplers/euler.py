"""Euler's method in sigma: Karras et al., arXiv 2206.00364, algorithm 2 without churn.

`m` is the UNet's output. Equals diffusers' EulerDiscreteScheduler, with Karras' sigmas if the checkpoint sets them. One
factor of the latents and one of the output are more accurate than diffusers' computation by slope and image, in which
digits cancel: if a schedule begins at a sigma in the thousands (rescale_betas_zero_snr), diffusers has errors of 1e-3.
"""

from math import sqrt
from typing import Any

import numpy as np

from pocketdiffusion.runtime.sampling.schedule import NoiseSchedule, check_start, select_timesteps
from pocketdiffusion.runtime.sampling.sigmas import karras_sigmas, sigmas_at, timesteps_at, with_final
from pocketdiffusion.runtime.sampling.step_table import Step, StepTable

DIFFUSERS: tuple[str, dict[str, Any]] = ("EulerDiscreteScheduler", {})


def table(schedule: NoiseSchedule, steps: int, start: int = 0) -> StepTable:
    """Return the table, with one call per step."""
    timesteps = select_timesteps(schedule, steps, "linspace").astype(np.float32).astype(np.float64)
    check_start(start, len(timesteps))
    sigmas = sigmas_at(schedule, timesteps)
    if schedule.use_karras_sigmas:
        sigmas = karras_sigmas(schedule, steps, float(sigmas[0]), float(sigmas[-1]))
        timesteps = timesteps_at(schedule, sigmas)
    sigmas = with_final(schedule, sigmas)

    rows = []
    for timestep, sigma, to in list(zip(timesteps.tolist(), sigmas.tolist(), sigmas[1:].tolist(), strict=False))[
        start:
    ]:
        a, b = move(schedule.prediction_type, sigma, to)
        rows.append(Step(timestep, input_scale(sigma), 0.0, 1.0, a, (b,), 0.0))
    return StepTable(
        sampler="euler",
        prediction_type=schedule.prediction_type,
        steps=steps,
        start=start,
        init_noise_sigma=init_noise_sigma(schedule, float(sigmas.max())),
        signal_scale=1.0,
        noise_scale=float(sigmas[start]),
        rows=tuple(rows),
    )


def move(prediction_type: str, sigma: float, to: float) -> tuple[float, float]:
    """Return the factors of the latents and of the output in a step along the slope, (latents - image) / sigma."""
    if prediction_type == "epsilon":
        return 1.0, to - sigma
    if prediction_type == "v_prediction":
        return (to * sigma + 1) / (sigma**2 + 1), (to - sigma) / sqrt(sigma**2 + 1)
    return to / sigma, 1 - to / sigma


def input_scale(sigma: float) -> float:
    """Return the factor that scales the latents to the variance that the UNet was trained on."""
    return 1 / sqrt(sigma**2 + 1)


def init_noise_sigma(schedule: NoiseSchedule, largest: float) -> float:
    """Return the standard deviation of the first latents: of pure noise, or of noise over an image of variance 1 if the
    first timestep is before the training's last ("leading")."""
    return sqrt(largest**2 + 1) if schedule.timestep_spacing == "leading" else largest
