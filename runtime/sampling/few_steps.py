"""What a sampler draws in so few steps that it begins where hardly any noise is left: noise, whatever the prompt."""

from pocketdiffusion.runtime.sampling.step_table import StepTable

ENOUGH = 0.5  # of the noise that it is given; two steps of Stable Diffusion's own schedule have 0.85, one has 0.04


def describe_start(table: StepTable) -> str | None:
    """Return a line for a person where `table` begins from pure noise at a timestep that expects less than half of it,
    as "leading" timesteps do in one step; None where all is well."""
    if table.start or table.noise_scale >= ENOUGH * table.init_noise_sigma:
        return None
    steps = f"{table.steps} step{'s' if table.steps > 1 else ''}"
    return (
        f"{table.sampler} in {steps} begins at timestep {table.rows[0].timestep:g}, where a picture is all but done, "
        "and so it draws noise: take more steps, or the sampler dpmpp_2m_karras"
    )
