"""The noise schedule of a checkpoint, read from its scheduler_config.json, and the timesteps that samplers visit.

A schedule belongs to the model (how it was trained), a sampler is the user's choice. So the settings are read once,
independent of the scheduler class that saved them, and every sampler uses the settings that its class in diffusers
reads. For a setting that is None each sampler has its own default.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import cos, pi
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.sampling.scheduler_settings import SchedulerSettings, read_settings

Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """`betas` (before any rescaling) and `alphas_cumprod` (after it) are float32 [train_steps]; the other fields are
    the settings of the same name in scheduler_config.json. `rounds_timesteps`: DPM-Solver++ with Karras' sigmas rounds
    its timesteps, else it truncates them."""

    betas: Float32
    alphas_cumprod: Float32
    prediction_type: str
    timestep_spacing: str | None
    steps_offset: int
    set_alpha_to_one: bool | None
    rescale_betas_zero_snr: bool
    use_karras_sigmas: bool
    sigma_min: float | None
    sigma_max: float | None
    final_sigmas_type: str
    lower_order_final: bool
    euler_at_final: bool
    lambda_min_clipped: float
    rounds_timesteps: bool

    @property
    def train_steps(self) -> int:
        return len(self.betas)


_FOLLOWED = [field.name for field in fields(NoiseSchedule) if field.name in SchedulerSettings.model_fields]


def read_schedule(config: Mapping[str, Any]) -> NoiseSchedule:
    """Return the schedule of a scheduler_config.json's content. Raise UserError as `read_settings` does, and if its
    betas are not between 0 and 1."""
    settings = read_settings(config)
    betas = _betas(settings)
    rescaled = rescale_to_zero_snr(betas) if settings.rescale_betas_zero_snr else betas
    return NoiseSchedule(
        betas=betas,
        alphas_cumprod=accumulate_alphas(rescaled),
        rounds_timesteps=settings.beta_schedule != "squaredcos_cap_v2",
        **{name: getattr(settings, name) for name in _FOLLOWED},
    )


def _betas(settings: SchedulerSettings) -> Float32:
    """Return the variances of the training steps, float32 [train_steps], rounded where diffusers rounds them."""
    steps, start, end = settings.num_train_timesteps, settings.beta_start, settings.beta_end
    if settings.trained_betas is not None:
        betas = np.array(settings.trained_betas, np.float32)
    elif settings.beta_schedule == "linear":
        betas = _line(start, end, steps)
    elif settings.beta_schedule == "scaled_linear":
        betas = np.square(_line(start**0.5, end**0.5, steps))
    else:  # the cosine of Nichol and Dhariwal, arXiv 2102.09672
        signal = [cos((i / steps + 0.008) / 1.008 * pi / 2) ** 2 for i in range(steps + 1)]
        betas = np.array([min(1 - signal[i + 1] / signal[i], 0.999) for i in range(steps)], np.float32)
    if not len(betas) or not ((betas > 0) & (betas < 1)).all():
        raise UserError(
            "scheduler_config.json: the betas must be between 0 and 1: correct beta_start, beta_end or trained_betas"
        )
    return betas


def _line(start: float, end: float, steps: int) -> Float32:
    """Return torch.linspace in float32, [steps]: a float32 step, counted from both ends to the middle, rounded once."""
    first, last = np.float32(start), np.float32(end)
    step = np.float64((last - first) / np.float32(max(steps - 1, 1)))
    forth = np.arange(steps)
    line = np.where(forth < steps // 2, first + step * forth, last - step * (steps - 1 - forth))
    return line.astype(np.float32)


def accumulate_alphas(betas: Float32) -> Float32:
    """Return the cumulative product of 1 - beta, float32 [train_steps], accumulated in float64 as torch does."""
    return np.cumprod((np.float32(1) - betas).astype(np.float64)).astype(np.float32)


def rescale_to_zero_snr(betas: Float32) -> Float32:
    """Rescale betas so that the last step is pure noise: Lin et al., arXiv 2305.08891, algorithm 1; float32
    [train_steps]."""
    root = np.sqrt(accumulate_alphas(betas))
    first, last = root[0], root[-1]
    signal = np.square((root - last) * (first / (first - last)))
    return np.float32(1) - np.concatenate([signal[:1], signal[1:] / signal[:-1]])


def check_steps(schedule: NoiseSchedule, steps: int) -> None:
    """Raise UserError unless 1 <= steps <= the training's."""
    if not 1 <= steps <= schedule.train_steps:
        raise UserError(f"steps must be from 1 to {schedule.train_steps}, not {steps}")


def check_start(start: int, calls: int) -> None:
    """Raise UserError unless 0 <= start < calls, the UNet calls of the table from start 0."""
    if not 0 <= start < calls:
        raise UserError(f"start {start} leaves no step to run: choose one from 0 to {calls - 1}")


def select_timesteps(schedule: NoiseSchedule, steps: int, spacing: str) -> NDArray[np.float64]:
    """Return the `steps` timesteps to visit, latest first, float64 [steps] (Lin et al., arXiv 2305.08891, table 2).

    `spacing` is the sampler's default, for a checkpoint that names none. "linspace" returns fractions; samplers that
    look up a training step round them. Raise UserError if steps_offset moves the first beyond the training's last.
    """
    check_steps(schedule, steps)
    last = schedule.train_steps - 1
    timesteps: NDArray[np.float64]
    match schedule.timestep_spacing or spacing:
        case "linspace":
            timesteps = np.linspace(0, last, steps, dtype=np.float64)[::-1]
        case "leading":
            timesteps = (
                np.arange(steps, dtype=np.float64)[::-1] * (schedule.train_steps // steps) + schedule.steps_offset
            )
        case _:
            ends = np.arange(last + 1, 0, -schedule.train_steps / steps, dtype=np.float64)
            timesteps = ends[:steps].round() - 1
    check_reach(schedule, timesteps)
    return timesteps


def check_reach(schedule: NoiseSchedule, timesteps: NDArray[np.float64]) -> None:
    """Raise UserError unless all `timesteps` are within the training's."""
    last = schedule.train_steps - 1
    for timestep in (timesteps.max(), timesteps.min()):
        if not 0 <= timestep <= last:
            raise UserError(
                f"{len(timesteps)} steps with steps_offset {schedule.steps_offset} need timestep {timestep:.0f}, and "
                f"the model was trained on timesteps 0 to {last}: use fewer steps"
            )
