"""The samplers. Each file of this folder is one: its name is the file's, its one function is

    table(schedule: NoiseSchedule, steps: int, start: int = 0) -> StepTable

which flattens the sampler to rows (see steps.py). `steps` is 1 to the training's (1000), `start` counts the UNet calls
left out at the beginning, for image-to-image. A table equals what the scheduler of that name in diffusers does when it
is built by `from_config` from the checkpoint's scheduler_config.json; each file says where it departs from that.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.sampling.schedule import NoiseSchedule
from pocketdiffusion.runtime.sampling.step_table import StepTable

# The sampler for each scheduler class that a checkpoint may name: first the classes that have a file here, then others
# with the nearest that has. Karras' sigmas are looked up apart.
DEFAULTS = {
    "PNDMScheduler": "pndm",
    "DDIMScheduler": "ddim",
    "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler_ancestral",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    # Solvers of the same equation, of other orders or with a corrector.
    "DPMSolverSinglestepScheduler": "dpmpp_2m",
    "DEISMultistepScheduler": "dpmpp_2m",
    "UniPCMultistepScheduler": "dpmpp_2m",
    "SASolverScheduler": "dpmpp_2m",
    # Solvers in sigma, some of which call the UNet twice a step.
    "LMSDiscreteScheduler": "euler",
    "HeunDiscreteScheduler": "euler",
    "KDPM2DiscreteScheduler": "euler",
    "KDPM2AncestralDiscreteScheduler": "euler_ancestral",
    "DPMSolverSDEScheduler": "euler_ancestral",
    # The scheduler of training, which takes 1000 steps to sample; DDIM walks the same schedule in few.
    "DDPMScheduler": "ddim",
}


def sampler_names() -> list[str]:
    """The names that `step_table` takes: the files of this folder."""
    return sorted(module.name for module in iter_modules(__path__))


def step_table(name: str, schedule: NoiseSchedule, steps: int, start: int = 0) -> StepTable:
    """The table of sampler `name`. Raises UserError at an unknown name, and where `table` does."""
    names = sampler_names()
    if name not in names:
        nearest = get_close_matches(name, names, 1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(names)}"
        raise UserError(f"no sampler is called {name!r}: {hint}")
    table: StepTable = import_module(f"{__name__}.{name}").table(schedule, steps, start)
    return table


def default_sampler(config: Mapping[str, Any]) -> str:
    """The sampler for a checkpoint whose scheduler_config.json holds `config`: its own, or the nearest in DEFAULTS.

    A DPM-Solver of any order or kind is `dpmpp_2m`, with Karras' sigmas `dpmpp_2m_karras`. Raises UserError where none
    comes near: models distilled for their own sampler (LCM, TCD), flow matching, EDM.
    """
    scheduler = config.get("_class_name")
    name = DEFAULTS.get(str(scheduler))
    if name is None:
        raise UserError(
            f"scheduler_config.json: no sampler here comes near {scheduler}: "
            f"if the model works with another, name it as _class_name ({', '.join(list(DEFAULTS)[:5])})"
        )
    return "dpmpp_2m_karras" if name == "dpmpp_2m" and config.get("use_karras_sigmas") else name
