"""The noise schedule and samplers that Apple's Swift pipeline assumes of every model.

Source: https://github.com/apple/ml-stable-diffusion, Scheduler.swift and DPMSolverMultistepScheduler.swift: epsilon is
predicted, betas are scaled_linear from 0.00085 to 0.012 over 1000 steps, and PNDM has steps_offset 1. The pipeline does
not read the model's scheduler_config.json, and `Configuration` has no field for any of its settings.
"""

import numpy as np

from pocketdiffusion.runtime.sampling.schedule import NoiseSchedule, read_schedule

ASSUMED = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000}
SAMPLERS = {"pndm": "PNDM", "dpmpp_2m": "DPM-Solver++ of order 2", "euler_ancestral": "Euler ancestral"}
_SPACING = {"pndm": "leading", "dpmpp_2m": "linspace", "euler_ancestral": "linspace"}


def differences(schedule: NoiseSchedule, sampler: str) -> tuple[str, ...]:
    """Return how Apple's assumptions differ from this model, in clauses whose subject is Apple's pipeline. `sampler` is
    the checkpoint's own, by our name."""
    found = []
    if schedule.prediction_type != "epsilon":
        found.append(f"takes what the UNet predicts for epsilon, this model predicts {schedule.prediction_type}")
    alphas = read_schedule(ASSUMED).alphas_cumprod
    if schedule.train_steps != len(alphas) or not np.allclose(schedule.alphas_cumprod, alphas, rtol=1e-3, atol=1e-6):
        own = f"from {schedule.betas[0]:.3g} to {schedule.betas[-1]:.3g} over {schedule.train_steps} steps"
        suffix = ", rescaled to a signal of zero" if schedule.rescale_betas_zero_snr else ""
        found.append(
            f"has betas that are scaled_linear from 0.00085 to 0.012 over 1000 steps, this model {own}{suffix}"
        )
    if sampler not in SAMPLERS:
        found.append(f"samples by {', '.join(SAMPLERS.values())} only, this model by {sampler}")
        return tuple(found)
    spacing = schedule.timestep_spacing or _SPACING[sampler]
    if spacing != _SPACING[sampler]:
        found.append(f"spaces the timesteps of {SAMPLERS[sampler]} as {_SPACING[sampler]!r}, this model as {spacing!r}")
    if sampler == "pndm" and (schedule.steps_offset != 1 or schedule.set_alpha_to_one):
        own = f"{schedule.steps_offset} and {schedule.set_alpha_to_one}"
        found.append(f"has PNDM with steps_offset 1 and set_alpha_to_one False, this model with {own}")
    return tuple(found)
