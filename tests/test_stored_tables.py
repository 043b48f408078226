"""The file of step tables gives back every sampler's own table, at every count of steps and from every start."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.sampling.samplers import sampler_names, step_table
from pocketdiffusion.runtime.sampling.schedule import read_schedule
from pocketdiffusion.runtime.sampling.step_table import Step, StepTable
from pocketdiffusion.runtime.sampling.stored_tables import StoredTables, read_table, write_tables

LARGEST = 250 * 1024  # bytes

BASE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000}
SD15 = {**BASE, "set_alpha_to_one": False, "steps_offset": 1, "timestep_spacing": "leading"}
V = {**BASE, "prediction_type": "v_prediction"}
SCHEDULES: dict[str, dict[str, Any]] = {
    "Stable Diffusion 1.5": SD15,
    "classes' own spacings": BASE,
    "v_prediction, steps_offset 0": {**V, "timestep_spacing": "leading"},
    "zero SNR, trailing": {**V, "timestep_spacing": "trailing", "rescale_betas_zero_snr": True},
    "Karras' sigmas, linspace": {**V, "timestep_spacing": "linspace", "use_karras_sigmas": True},
    "few training steps, last sigma": {"num_train_timesteps": 120, "final_sigmas_type": "sigma_min"},
    "sample": {**BASE, "prediction_type": "sample", "lower_order_final": False},
}


def in_float32(table: StepTable) -> StepTable:
    """The numbers in float32, without the factors of 0 at the end of b."""

    def number(value: float) -> float:
        return float(np.float32(value))

    def row(step: Step) -> Step:
        b = [number(factor) for factor in step.b]
        while len(b) > 1 and not b[-1]:
            b.pop()
        return Step(
            number(step.timestep),
            number(step.input_scale),
            number(step.p),
            number(step.q),
            number(step.a),
            tuple(b),
            number(step.c),
        )

    return replace(
        table,
        init_noise_sigma=number(table.init_noise_sigma),
        signal_scale=number(table.signal_scale),
        noise_scale=number(table.noise_scale),
        rows=tuple(row(step) for step in table.rows),
    )


FAST = ("Stable Diffusion 1.5", "sample")


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in SCHEDULES])
def test_gives_back_every_table_to_the_last_bit_of_float32(name: str) -> None:
    schedule = read_schedule(SCHEDULES[name])
    file = write_tables(schedule)
    raw, index = file.raw, file.index
    assert len(raw) <= LARGEST
    assert StoredTables.model_validate_json(index.model_dump_json()) == index
    for sampler in sampler_names():
        if sampler not in index.samplers:
            with pytest.raises(UserError):
                step_table(sampler, schedule, 10)
            continue
        for steps, rows in enumerate(index.samplers[sampler].rows, 1):
            for start in range(rows):
                expected = in_float32(step_table(sampler, schedule, steps, start))
                found = read_table(index, raw, sampler, steps, start)
                assert in_float32(found) == expected, (sampler, steps, start)


def test_a_count_that_the_schedule_refuses_has_no_rows() -> None:
    """With an offset of 30, 50 steps would begin behind the last training step."""
    schedule = read_schedule({**SD15, "steps_offset": 30})
    file = write_tables(schedule)
    raw, index = file.raw, file.index
    rows = index.samplers["ddim"].rows
    assert rows[24] == 25 and rows[39] == rows[49] == 0
    assert in_float32(read_table(index, raw, "ddim", 25)) == in_float32(step_table("ddim", schedule, 25))
    with pytest.raises(UserError, match="tables of 1 to .*, not of 50"):
        read_table(index, raw, "ddim", 50)


def test_refuses_what_the_file_has_not() -> None:
    file = write_tables(read_schedule(SD15), most_steps=6)
    raw, index = file.raw, file.index
    for steps in (0, 7, -1):
        with pytest.raises(UserError, match=f"tables of 1 to 6 steps for euler, not of {steps}"):
            read_table(index, raw, "euler", steps)
    for start in (-1, 6):
        with pytest.raises(UserError, match="leaves no step to run"):
            read_table(index, raw, "euler", 6, start)
    with pytest.raises(UserError, match="no sampler 'heun': choose one of ddim, "):
        read_table(index, raw, "heun", 4)


def test_a_file_that_is_cut_off_or_an_index_with_a_gap_is_found() -> None:
    file = write_tables(read_schedule(SD15), most_steps=6)
    raw, index = file.raw, file.index
    with pytest.raises(ProofError, match="end at byte 8, "):
        read_table(index, raw[:8], "pndm", 6)
    fields = index.model_dump()
    del fields["samplers"]["euler"]["columns"]["b0"]
    with pytest.raises(ProofError, match="euler have no column b0"):
        read_table(StoredTables.model_validate(fields), raw, "euler", 6)


def test_a_changed_number_of_the_file_changes_the_tables_that_have_its_row() -> None:
    """So the comparison above can fail."""
    schedule = read_schedule(SD15)
    file = write_tables(schedule, most_steps=7)
    raw, index = file.raw, file.index
    values = np.frombuffer(raw, "<f4").copy()
    values[index.samplers["euler"].columns["b0"] // 4 + (1 + 2 + 3 + 4) + 3] *= 1.001
    changed = [
        (steps, start)
        for steps in range(1, 8)
        for start in range(steps)
        if read_table(index, values.tobytes(), "euler", steps, start) != read_table(index, raw, "euler", steps, start)
    ]
    assert changed == [(5, 0), (5, 1), (5, 2), (5, 3)]
