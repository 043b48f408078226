"""The samplers. Each file of this folder is one: its name is the file's, its one function is

    table(schedule: NoiseSchedule, steps: int, start: int = 0) -> StepTable

which writes the sampler as rows (see step_table.py). `steps` is 1 to 1000 (the training's), `start` is the number of
calls skipped at the beginning, for image-to-image. A table computes the same as the scheduler of that name in diffusers
if it is built by `from_config` from the checkpoint's scheduler_config.json; each file states the differences, and
names in `DIFFUSERS` the class and the settings. By these the sampler for a checkpoint's scheduler is found.

A row uses at most step_table.REACH outputs. `table` raises UserError for a kind of prediction that it cannot compute; a
kind that only diffusers' class refuses is listed in runtime/verify/vector_check.py (`REFUSED`), a setting that has to
be off in scheduler_settings.py. A new sampler changes the step tables of all bundles, and with them the ids.
"""

import sys
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.sampling.schedule import NoiseSchedule
from pocketdiffusion.runtime.sampling.step_table import StepTable


def sampler_names() -> list[str]:
    """Return the names of all samplers: the files of this folder."""
    return sorted(module.name for module in iter_modules(__path__))


def check_sampler(name: str) -> None:
    """Raise UserError if no sampler is called `name`."""
    names = sampler_names()
    if name not in names:
        nearest = get_close_matches(name, names, 1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(names)}"
        raise UserError(f"no sampler is called {name!r}: {hint}")


def step_table(name: str, schedule: NoiseSchedule, steps: int, start: int = 0) -> StepTable:
    """Return the table of sampler `name`. Raise UserError for an unknown name, and as `table` does."""
    if f"{__name__}.{name}" not in sys.modules:  # thousands of tables are made at once
        check_sampler(name)
    table: StepTable = import_module(f"{__name__}.{name}").table(schedule, steps, start)
    return table


def diffusers_class(name: str) -> tuple[str, Mapping[str, Any]]:
    """Return the scheduler class of diffusers that sampler `name` equals, and its settings. Raise UserError for an
    unknown name."""
    check_sampler(name)
    found: tuple[str, Mapping[str, Any]] = import_module(f"{__name__}.{name}").DIFFUSERS
    return found


def default_sampler(config: Mapping[str, Any]) -> str:
    """Return the sampler that equals the scheduler of a checkpoint with the settings `config`: it has the same class,
    and its settings in `DIFFUSERS` differ least from `config`, where a missing setting is False. Raise UserError if no
    sampler has the class."""
    scheduler, found = config.get("_class_name"), {}
    for name in sampler_names():
        known, settings = diffusers_class(name)
        if known == scheduler:
            same = sum((config.get(key) or False) == value for key, value in settings.items())
            found[name] = (len(settings) - same, -same)
    if not found:
        raise UserError(
            f"no sampler here equals the checkpoint's scheduler {scheduler}: choose another with --sampler "
            f"{', '.join(sampler_names())}"
        )
    return min(found, key=lambda name: found[name])
