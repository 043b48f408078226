"""PNDM in its linear multistep form (PLMS): Liu et al., arXiv 2202.09778, equations 9 and 12.

`m` is the UNet's output. Equals diffusers' PNDMScheduler with skip_prk_steps, also if the checkpoint turns it off: the
Runge-Kutta steps at the beginning need 12 calls and cannot start in the middle. As in diffusers, the first step is done
twice (a trial step, then the step again with the mean of both outputs), so n steps have n + 1 calls (1 step has 1), and
a rescaled schedule (rescale_betas_zero_snr) is not followed. `start` counts calls.

If steps_offset is 0 and set_alpha_to_one is off, the last row is at timestep 0 and changes nothing: its a is 1 and all
its b are 0, so an engine may skip the call. With 1 step the only row is at timestep steps_offset, where the model
expects a finished picture: pure noise stays noise, as in diffusers (few_steps.py warns of it).
"""

from math import sqrt
from typing import Any

from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.sampling.schedule import NoiseSchedule, accumulate_alphas, check_start, select_timesteps
from pocketdiffusion.runtime.sampling.step_table import Step, StepTable

# Adams and Bashforth's factors of the outputs so far, newest first, by the number of outputs.
BLENDS = {1: (1.0,), 2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12), 4: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}

DIFFUSERS: tuple[str, dict[str, Any]] = ("PNDMScheduler", {"skip_prk_steps": True})


def table(schedule: NoiseSchedule, steps: int, start: int = 0) -> StepTable:
    """Return the table, with one call per step and one more for the first. Raise UserError for "sample"."""
    if schedule.prediction_type == "sample":
        raise UserError("the sampler pndm accepts epsilon and v_prediction, not sample: choose another sampler")
    distinct = select_timesteps(schedule, steps, "leading").round().astype(int).tolist()
    timesteps = distinct[:2] + distinct[1:]
    check_start(start, len(timesteps))
    timesteps = timesteps[start:]
    alphas = accumulate_alphas(schedule.betas).astype(float).tolist()
    final = 1.0 if schedule.set_alpha_to_one else alphas[0]
    stride = schedule.train_steps // steps

    def move(timestep: int) -> tuple[float, float]:
        """Return the factors of the latents and of the blended output in a step of `stride` from `timestep`."""
        before = timestep - stride
        return _move(schedule.prediction_type, alphas[timestep], alphas[before] if before >= 0 else final)

    rows = []
    for call, timestep in enumerate(timesteps):
        if call == 1:
            # Again from the first latents; after the trial step the latents are a0 * first + b0 * m1.
            (a0, b0), (a, b) = move(timesteps[0]), move(timestep + stride)
            factors: tuple[float, ...] = (b / 2, b / 2 - a / a0 * b0)
            a = a / a0
        else:
            a, b = move(timestep)
            blend = BLENDS[min(max(call, 1), 4)]
            factors = tuple(b * weight for weight in blend)
            if 2 <= call <= 4:  # the second call's output is not used
                factors = (*factors[:-1], 0.0, factors[-1])
        rows.append(Step(float(timestep), 1.0, 0.0, 1.0, a, factors, 0.0))
    alpha = alphas[timesteps[0]]
    return StepTable("pndm", schedule.prediction_type, steps, start, 1.0, sqrt(alpha), sqrt(1 - alpha), tuple(rows))


def _move(prediction_type: str, alpha: float, to: float) -> tuple[float, float]:
    """Return the factors of the latents and of the blended output in a step from one cumulative alpha to another."""
    b = (alpha - to) / (alpha * sqrt(1 - to) + sqrt(alpha * (1 - alpha) * to))
    a = sqrt(to / alpha)
    return (a + b * sqrt(1 - alpha), b * sqrt(alpha)) if prediction_type == "v_prediction" else (a, b)
