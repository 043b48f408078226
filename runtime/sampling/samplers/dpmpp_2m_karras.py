"""DPM-Solver++(2M) as in dpmpp_2m, with Karras' sigmas (arXiv 2206.00364, equation 5), from the largest to the smallest
sigma of the training. Equals diffusers' DPMSolverMultistepScheduler with use_karras_sigmas; timestep_spacing has no
effect."""

from typing import Any

import numpy as np

from pocketdiffusion.runtime.sampling.samplers.dpmpp_2m import solve
from pocketdiffusion.runtime.sampling.schedule import NoiseSchedule, check_steps
from pocketdiffusion.runtime.sampling.sigmas import karras_sigmas, timesteps_at, training_sigmas, with_final
from pocketdiffusion.runtime.sampling.step_table import StepTable

DIFFUSERS: tuple[str, dict[str, Any]] = (
    "DPMSolverMultistepScheduler",
    {"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint", "use_karras_sigmas": True},
)


def table(schedule: NoiseSchedule, steps: int, start: int = 0) -> StepTable:
    """Return the table, with one call per step."""
    check_steps(schedule, steps)
    known = training_sigmas(schedule)
    sigmas = karras_sigmas(schedule, steps, float(known[-1]), float(known[0]))
    timesteps = timesteps_at(schedule, sigmas)
    timesteps = timesteps.round() if schedule.rounds_timesteps else np.floor(timesteps)
    return solve("dpmpp_2m_karras", schedule, steps, start, timesteps, with_final(schedule, sigmas))
