"""What every sampler must do: equal the class of diffusers that its file names, over counts of steps and starts."""

from pathlib import Path

import numpy as np
import pytest
from support.sampler_runs import BASE, SD15, check_equal

from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.sampling.samplers import default_sampler, diffusers_class, sampler_names, step_table
from pocketdiffusion.runtime.sampling.schedule import read_schedule
from pocketdiffusion.runtime.sampling.step_table import REACH

in_each = pytest.mark.parametrize("name", sampler_names())


@in_each
def test_it_is_the_scheduler_of_its_class_and_settings(name: str) -> None:
    kind, settings = diffusers_class(name)
    assert default_sampler({**BASE, "_class_name": kind, **settings}) == name


def test_every_file_is_a_sampler() -> None:
    import pocketdiffusion.runtime.sampling.samplers as package

    files = {file.stem for file in Path(str(package.__file__)).parent.glob("*.py")}
    assert files - {"__init__"} == set(sampler_names())


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@in_each
def test_equals_diffusers(name: str, spacing: str, prediction_type: str) -> None:
    """All classes take all three spacings; Karras' sigmas pass over them. All take one step."""
    check_equal(name, {**SD15, "timestep_spacing": spacing, "prediction_type": prediction_type})


@in_each
def test_equals_diffusers_by_its_own_defaults(name: str) -> None:
    """Each class has its own for timestep_spacing and set_alpha_to_one."""
    check_equal(name, BASE)


@in_each
def test_rows_reach_no_further_back_than_there_are_rows(name: str) -> None:
    """Nor further than REACH, and many steps are no trouble: timesteps repeat where there are nearly as many."""
    config = {**SD15, "steps_offset": 0, "prediction_type": "v_prediction"}
    for spacing in ("leading", "trailing", "linspace"):
        for steps in (1, 2, 3, 50, 501, 998):
            table = step_table(name, read_schedule({**config, "timestep_spacing": spacing}), steps, steps // 3)
            assert (table.sampler, table.steps, table.start) == (name, steps, steps // 3)
            for number, row in enumerate(table.rows, 1):
                assert len(row.b) <= min(number, REACH)
                assert np.isfinite([row.timestep, row.input_scale, row.p, row.q, row.a, *row.b, row.c]).all()
                assert 0 <= row.timestep <= 999


@in_each
def test_refuses_what_leaves_no_step(name: str) -> None:
    schedule = read_schedule(SD15)
    for steps in (0, -3, 1001):
        with pytest.raises(UserError, match="steps must be from 1 to 1000"):
            step_table(name, schedule, steps)
    for start in (-1, 11):
        with pytest.raises(UserError, match="leaves no step to run"):
            step_table(name, schedule, 10, start)
