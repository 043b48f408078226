"""The noise schedule of a checkpoint, read from its scheduler_config.json, and the timesteps that samplers visit.

A schedule belongs to the model (how it was trained), a sampler to the user. So the settings are read once, whatever
scheduler class they were saved by, and every sampler takes those that its own class in diffusers would take; settings
that are absent here (None) have a default that differs from sampler to sampler.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import cos, inf, pi
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketdiffusion.runtime.errors import UserError

Float32 = NDArray[np.float32]

BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
SPACINGS = ("leading", "linspace", "trailing")

# Settings that change the arithmetic in ways that no sampler here knows, with the values that leave it as it is.
PLAIN = {
    "thresholding": (False, None),
    "use_exponential_sigmas": (False, None),
    "use_beta_sigmas": (False, None),
    "use_lu_lambdas": (False, None),
    "use_flow_sigmas": (False, None),
    "use_dynamic_shifting": (False, None),
    "interpolation_type": ("linear", None),
    "timestep_type": ("discrete", None),
    "variance_type": ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", None),
}


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """`betas` (before any rescaling) and `alphas_cumprod` (after it) are float32 [train_steps]; the rest are the
    settings of the same name in scheduler_config.json. `rounds_timesteps` is whether DPM-Solver++ with Karras' sigmas
    rounds its timesteps (else it cuts their fraction off)."""

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


def read_schedule(config: Mapping[str, Any]) -> NoiseSchedule:
    """The schedule of a scheduler_config.json's content.

    Absent settings have diffusers' defaults. Settings of scheduler classes that have no sampler here are passed over,
    and so is `clip_sample`, which diffusers' Stable Diffusion pipelines turn off as well. Raises UserError at a value
    that is unknown or that no sampler here can follow.
    """
    for key, values in PLAIN.items():
        if config.get(key) not in values:
            raise UserError(f"scheduler_config.json: {key} {config[key]!r} is not supported: set it to {values[0]!r}")
    beta_schedule = _one_of(config, "beta_schedule", BETA_SCHEDULES) or "linear"
    betas = _betas(config, beta_schedule)
    rescale = bool(config.get("rescale_betas_zero_snr", False))
    return NoiseSchedule(
        betas=betas,
        alphas_cumprod=accumulate_alphas(rescale_to_zero_snr(betas) if rescale else betas),
        prediction_type=_one_of(config, "prediction_type", PREDICTION_TYPES) or "epsilon",
        timestep_spacing=_one_of(config, "timestep_spacing", SPACINGS),
        steps_offset=int(_number(config, "steps_offset", 0)),
        set_alpha_to_one=config.get("set_alpha_to_one"),
        rescale_betas_zero_snr=rescale,
        use_karras_sigmas=bool(config.get("use_karras_sigmas", False)),
        sigma_min=None if config.get("sigma_min") is None else _number(config, "sigma_min", 0),
        sigma_max=None if config.get("sigma_max") is None else _number(config, "sigma_max", 0),
        final_sigmas_type=_one_of(config, "final_sigmas_type", ("zero", "sigma_min")) or "zero",
        lower_order_final=bool(config.get("lower_order_final", True)),
        euler_at_final=bool(config.get("euler_at_final", False)),
        lambda_min_clipped=_number(config, "lambda_min_clipped", -inf),
        rounds_timesteps=beta_schedule != "squaredcos_cap_v2",
    )


def _one_of(config: Mapping[str, Any], key: str, values: Sequence[str]) -> str | None:
    value: str | None = config.get(key)
    if value is not None and value not in values:
        raise UserError(f"scheduler_config.json: {key} {value!r} is not supported: it can be {', '.join(values)}")
    return value


def _number(config: Mapping[str, Any], key: str, default: float) -> float:
    value = default if config.get(key) is None else config[key]
    try:
        return float(value)
    except (TypeError, ValueError):
        raise UserError(f"scheduler_config.json: {key} is {value!r}, which is no number: correct it") from None


def _betas(config: Mapping[str, Any], beta_schedule: str) -> Float32:
    """The variances of the training steps, float32 [train_steps], rounded where diffusers rounds them."""
    steps = int(_number(config, "num_train_timesteps", 1000))
    start, end = _number(config, "beta_start", 0.0001), _number(config, "beta_end", 0.02)
    if min(start, end) <= 0 or steps < 1:
        raise UserError(
            "scheduler_config.json: beta_start, beta_end and num_train_timesteps must be over 0: correct them"
        )
    if config.get("trained_betas") is not None:
        betas = np.array(
            [_number({"trained_betas": beta}, "trained_betas", 0) for beta in config["trained_betas"]], "f4"
        )
    elif beta_schedule == "linear":
        betas = _line(start, end, steps)
    elif beta_schedule == "scaled_linear":
        betas = np.square(_line(start**0.5, end**0.5, steps))
    else:  # the cosine of Nichol and Dhariwal, arXiv 2102.09672
        signal = [cos((i / steps + 0.008) / 1.008 * pi / 2) ** 2 for i in range(steps + 1)]
        betas = np.array([min(1 - signal[i + 1] / signal[i], 0.999) for i in range(steps)], np.float32)
    if not len(betas) or not ((betas > 0) & (betas < 1)).all():
        raise UserError(
            "scheduler_config.json: the betas must lie between 0 and 1: correct beta_start, beta_end or trained_betas"
        )
    return betas


def _line(start: float, end: float, steps: int) -> Float32:
    """torch.linspace in float32, [steps]: a float32 step, counted from both ends to the middle, rounded once."""
    first, last = np.float32(start), np.float32(end)
    step = np.float64((last - first) / np.float32(max(steps - 1, 1)))
    forth = np.arange(steps)
    line = np.where(forth < steps // 2, first + step * forth, last - step * (steps - 1 - forth))
    return line.astype(np.float32)


def accumulate_alphas(betas: Float32) -> Float32:
    """The running product of 1 - beta, float32 [train_steps], summed up in float64 as torch does."""
    return np.cumprod((np.float32(1) - betas).astype(np.float64)).astype(np.float32)


def rescale_to_zero_snr(betas: Float32) -> Float32:
    """Betas whose last step is pure noise: Lin et al., arXiv 2305.08891, algorithm 1; float32 [train_steps]."""
    root = np.sqrt(accumulate_alphas(betas))
    first, last = root[0], root[-1]
    signal = np.square((root - last) * (first / (first - last)))
    return np.float32(1) - np.concatenate([signal[:1], signal[1:] / signal[:-1]])


def check_steps(schedule: NoiseSchedule, steps: int) -> None:
    """Raises UserError unless 1 <= steps <= the training's."""
    if not 1 <= steps <= schedule.train_steps:
        raise UserError(f"steps must be from 1 to {schedule.train_steps}, not {steps}")


def check_start(start: int, calls: int) -> None:
    """Raises UserError unless 0 <= start < the UNet calls of the whole table."""
    if not 0 <= start < calls:
        raise UserError(f"start {start} leaves no step to run: take one from 0 to {calls - 1}")


def select_timesteps(schedule: NoiseSchedule, steps: int, spacing: str) -> NDArray[np.float64]:
    """The `steps` timesteps to visit, latest first, float64 [steps] (Lin et al., arXiv 2305.08891, table 2).

    `spacing` is the sampler's default where the checkpoint names none. "linspace" gives fractions; samplers that look
    up a training step round them. Raises UserError where steps_offset carries the first beyond the training's last.
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
    """Raises UserError unless all `timesteps` are within the training's."""
    last = schedule.train_steps - 1
    for timestep in (timesteps.max(), timesteps.min()):
        if not 0 <= timestep <= last:
            raise UserError(
                f"{len(timesteps)} steps with steps_offset {schedule.steps_offset} visit timestep {timestep:.0f}, "
                f"the model was trained on 0 to {last}: take fewer steps"
            )
