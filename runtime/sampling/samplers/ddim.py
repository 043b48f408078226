"""DDIM without added noise: Song et al., arXiv 2010.02502, equation 12 with eta = 0.

`m` is the UNet's output. Equals diffusers' DDIMScheduler, except that it never clips (see SchedulerSettings).
`set_alpha_to_one` states whether the last step ends at a clean image (the default) or at the first training step.
"""

from math import sqrt
from typing import Any

from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.sampling.schedule import NoiseSchedule, check_start, select_timesteps
from pocketdiffusion.runtime.sampling.step_table import Step, StepTable

DIFFUSERS: tuple[str, dict[str, Any]] = ("DDIMScheduler", {"clip_sample": False, "thresholding": False})


def table(schedule: NoiseSchedule, steps: int, start: int = 0) -> StepTable:
    """Return the table, with one call per step."""
    timesteps = select_timesteps(schedule, steps, "leading").round().astype(int).tolist()
    check_start(start, len(timesteps))
    alphas = schedule.alphas_cumprod.astype(float).tolist()
    final = alphas[0] if schedule.set_alpha_to_one is False else 1.0
    stride = schedule.train_steps // steps

    rows = []
    for timestep in timesteps[start:]:
        before = timestep - stride
        a, b = _move(schedule.prediction_type, alphas[timestep], alphas[before] if before >= 0 else final)
        rows.append(Step(float(timestep), 1.0, 0.0, 1.0, a, (b,), 0.0))
    alpha = alphas[timesteps[start]]
    return StepTable("ddim", schedule.prediction_type, steps, start, 1.0, sqrt(alpha), sqrt(1 - alpha), tuple(rows))


def _move(prediction_type: str, alpha: float, to: float) -> tuple[float, float]:
    """Return the factors of the latents and of the output in a step from one cumulative alpha to another."""
    signal, noise = sqrt(alpha), sqrt(1 - alpha)
    to_signal, to_noise = sqrt(to), sqrt(1 - to)
    if prediction_type == "v_prediction":
        return to_signal * signal + to_noise * noise, to_noise * signal - to_signal * noise
    if prediction_type == "sample":
        return to_noise / noise, to_signal - to_noise * signal / noise
    if signal == 0:
        raise UserError("a schedule that ends in pure noise (rescale_betas_zero_snr) needs v_prediction, not epsilon")
    return to_signal / signal, to_noise - to_signal * noise / signal
