"""The noise schedule as Karras et al. (arXiv 2206.00364) write it: latents = image + sigma * noise, unscaled.

A sigma is the noise over the signal, sqrt((1 - alpha_cumprod) / alpha_cumprod): 0.03 to 15 in Stable Diffusion.
"""

import numpy as np
from numpy.typing import NDArray

from pocketdiffusion.runtime.sampling.schedule import NoiseSchedule

Floats = NDArray[np.float64]

RHO = 7.0  # exponent of Karras' spacing: the larger, the denser are the small sigmas
LAST_ALPHA = 2.0**-24  # instead of 0 if the schedule ends in pure noise, whose sigma would be infinite


def training_sigmas(schedule: NoiseSchedule) -> Floats:
    """Return the sigma of every training step, ascending, float64 [train_steps], rounded to float32 as in diffusers."""
    alphas = schedule.alphas_cumprod.copy()
    if schedule.rescale_betas_zero_snr:
        alphas[-1] = LAST_ALPHA
    sigmas: Floats = np.sqrt((1 - alphas) / alphas).astype(np.float64)
    return sigmas


def sigmas_at(schedule: NoiseSchedule, timesteps: Floats) -> Floats:
    """Return the sigmas of `timesteps`, float64 [n], interpolated between training steps (linear in sigma)."""
    sigmas = training_sigmas(schedule)
    return np.interp(timesteps, np.arange(len(sigmas)), sigmas)


def timesteps_at(schedule: NoiseSchedule, sigmas: Floats) -> Floats:
    """Return the timesteps of `sigmas`, float64 [n], interpolated between training steps (linear in log sigma)."""
    known = np.log(training_sigmas(schedule).astype(np.float32))
    return np.interp(np.log(np.maximum(sigmas, 1e-10)), known, np.arange(len(known)))


def karras_sigmas(schedule: NoiseSchedule, steps: int, largest: float, smallest: float) -> Floats:
    """Return `steps` descending sigmas, evenly spaced in the seventh root (their equation 5); float64 [steps].

    The checkpoint's `sigma_max` and `sigma_min`, if they are set, replace `largest` and `smallest`.
    """
    largest = schedule.sigma_max if schedule.sigma_max is not None else largest
    smallest = schedule.sigma_min if schedule.sigma_min is not None else smallest
    return np.linspace(largest ** (1 / RHO), smallest ** (1 / RHO), steps) ** RHO


def with_final(schedule: NoiseSchedule, sigmas: Floats) -> Floats:
    """Append the final sigma, 0 or the smallest of the training. Return float64 [n + 1], each rounded to float32 as in
    diffusers."""
    final = 0.0 if schedule.final_sigmas_type == "zero" else training_sigmas(schedule)[0]
    return np.append(sigmas, final).astype(np.float32).astype(np.float64)
