"""Warn of too few steps: a sampler that begins where a picture has hardly any noise left draws noise for any prompt."""

from pocketdiffusion.runtime.sampling.step_table import StepTable

ENOUGH = 0.5  # of the noise that is drawn; two steps of Stable Diffusion's own schedule expect 0.85 of it, one 0.04


def describe_start(table: StepTable) -> str | None:
    """Return a warning if `table` begins from pure noise at a timestep that expects less than half of it, as "leading"
    timesteps do in one step; else None."""
    if table.start or table.noise_scale >= ENOUGH * table.init_noise_sigma:
        return None
    steps = f"{table.steps} step{'s' if table.steps > 1 else ''}"
    return (
        f"{table.sampler} in {steps} begins at timestep {table.rows[0].timestep:g}, where a picture is almost finished,"
        " so it draws noise: use more steps, or the sampler dpmpp_2m_karras"
    )
