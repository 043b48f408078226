"""DPM-Solver++(2M), the second-order multistep solver in its midpoint form: Lu et al., arXiv 2211.01095, algorithm 2.

`m` is the image that the UNet's output implies. Equals diffusers' DPMSolverMultistepScheduler with algorithm_type
"dpmsolver++", solver_order 2, solver_type "midpoint" and use_karras_sigmas off, also if the checkpoint has other values
of these four; its lower_order_final, euler_at_final, final_sigmas_type and lambda_min_clipped are followed.
"""

from math import exp, inf, log, sqrt
from typing import Any

import numpy as np

from pocketdiffusion.runtime.sampling.schedule import NoiseSchedule, check_reach, check_start, check_steps
from pocketdiffusion.runtime.sampling.sigmas import Floats, sigmas_at, training_sigmas, with_final
from pocketdiffusion.runtime.sampling.step_table import Step, StepTable

FEW = 15  # lower_order_final applies to fewer steps

DIFFUSERS: tuple[str, dict[str, Any]] = (
    "DPMSolverMultistepScheduler",
    {"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint", "use_karras_sigmas": False},
)


def table(schedule: NoiseSchedule, steps: int, start: int = 0) -> StepTable:
    """Return the table, with one call per step."""
    timesteps = _timesteps(schedule, steps)
    return solve("dpmpp_2m", schedule, steps, start, timesteps, with_final(schedule, sigmas_at(schedule, timesteps)))


def solve(
    sampler: str, schedule: NoiseSchedule, steps: int, start: int, timesteps: Floats, sigmas: Floats
) -> StepTable:
    """Return the table for `timesteps`, float64 [n], and their `sigmas`, float64 [n + 1] with the final sigma."""
    count = len(timesteps)
    check_start(start, count)
    few = schedule.lower_order_final and count < FEW
    first_order_last = schedule.euler_at_final or few or schedule.final_sigmas_type == "zero"

    rows = []
    for i in range(start, count):
        sigma, to = float(sigmas[i]), float(sigmas[i + 1])
        signal = 1 / sqrt(sigma**2 + 1)
        if schedule.prediction_type == "epsilon":
            p, q = 1 / signal, -sigma
        elif schedule.prediction_type == "v_prediction":
            p, q = signal, -sigma * signal
        else:
            p, q = 0.0, 1.0
        to_signal = 1 / sqrt(to**2 + 1)
        a = to * to_signal / (sigma * signal)
        step = log(sigma / to) if to else inf  # in the logarithm of signal over noise
        b = to_signal * (1 - exp(-step))
        if i == start or (i == count - 1 and first_order_last):
            rows.append(Step(float(timesteps[i]), 1.0, p, q, a, (b,), 0.0))
        else:
            step_before = log(float(sigmas[i - 1]) / sigma)
            half = 0.5 * step / step_before if step_before else 0.0
            rows.append(Step(float(timesteps[i]), 1.0, p, q, a, (b * (1 + half), -b * half), 0.0))
    scale = 1 / sqrt(float(sigmas[start]) ** 2 + 1)
    noise_scale = float(sigmas[start]) * scale
    return StepTable(sampler, schedule.prediction_type, steps, start, 1.0, scale, noise_scale, tuple(rows))


def _timesteps(schedule: NoiseSchedule, steps: int) -> Floats:
    """Return the timesteps, latest first, float64 [steps]. In contrast to other samplers they are spaced as if one more
    followed the last, and they begin where log(signal / noise) is at least lambda_min_clipped."""
    check_steps(schedule, steps)
    last = int(np.count_nonzero(-np.log(training_sigmas(schedule)) >= schedule.lambda_min_clipped))
    timesteps: Floats
    match schedule.timestep_spacing or "linspace":
        case "linspace":
            timesteps = np.linspace(0, last - 1, steps + 1, dtype=np.float64).round()[:0:-1]
        case "leading":
            timesteps = np.arange(steps, 0, -1, dtype=np.float64) * (last // (steps + 1)) + schedule.steps_offset
        case _:
            timesteps = np.arange(last, 0, -schedule.train_steps / steps, dtype=np.float64)[:steps].round() - 1
    check_reach(schedule, timesteps)
    return timesteps
