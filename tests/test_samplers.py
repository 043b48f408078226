"""What is particular to one sampler; conformance/test_every_sampler.py has what all must do."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.sampler_runs import (
    BASE,
    COUNTS,
    SD15,
    SHAPE,
    ZERO_SNR,
    Latents,
    check_equal,
    compare,
    draw,
    draw_by_diffusers,
)
from support.step_columns import unpack_steps

from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.noise import TorchRandom
from pocketdiffusion.runtime.sampling.few_steps import describe_start
from pocketdiffusion.runtime.sampling.samplers import default_sampler, sampler_names, step_table
from pocketdiffusion.runtime.sampling.schedule import read_schedule
from pocketdiffusion.runtime.sampling.step_table import REACH, Step, advance


@pytest.mark.parametrize(
    "name, settings",
    [
        ("ddim", {"set_alpha_to_one": True}),
        ("pndm", {"set_alpha_to_one": True}),
        ("dpmpp_2m", {"lower_order_final": False}),
        ("dpmpp_2m", {"lower_order_final": False, "final_sigmas_type": "sigma_min"}),
        ("dpmpp_2m", {"final_sigmas_type": "sigma_min", "euler_at_final": True}),
        ("dpmpp_2m", {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1}),
        (
            "dpmpp_2m",
            {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1, "timestep_spacing": "trailing"},
        ),
        ("dpmpp_2m_karras", {"final_sigmas_type": "sigma_min"}),
        ("dpmpp_2m_karras", {"sigma_min": 0.1, "sigma_max": 9.0}),
        ("euler", {"use_karras_sigmas": True}),
        ("euler", {"use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 9.0}),
        ("euler", {"final_sigmas_type": "sigma_min"}),
        ("ddim", {"prediction_type": "sample"}),
        ("dpmpp_2m", {"prediction_type": "sample"}),
        ("euler", {"prediction_type": "sample"}),
        ("ddim", {"trained_betas": list(np.linspace(0.001, 0.02, 300)), "num_train_timesteps": 300}),
        ("pndm", {"beta_schedule": "linear", "beta_end": 0.02}),
        ("euler_ancestral", {"beta_schedule": "linear", "beta_end": 0.02}),
    ],
)
def test_equals_diffusers_with_other_settings(name: str, settings: dict[str, Any]) -> None:
    check_equal(name, {**SD15, **settings})


@pytest.mark.parametrize("steps", [14, 15, 16])
def test_few_steps_end_in_a_lower_order(steps: int) -> None:
    """lower_order_final counts under 15 steps, and shows where the last sigma is not 0."""
    assert compare("dpmpp_2m", {**SD15, "final_sigmas_type": "sigma_min"}, steps) < 1e-4


@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m", "pndm"])
def test_equals_diffusers_at_zero_snr(name: str) -> None:
    """PNDM ignores the rescaling, there and here."""
    check_equal(name, ZERO_SNR)


@pytest.mark.parametrize("name", ["euler", "euler_ancestral"])
def test_equals_diffusers_at_zero_snr_in_sigma(name: str) -> None:
    """Here sigma begins at 4096 and the first latents reach 14,000. diffusers brings them down by subtracting float32
    numbers of that size, so its result is uncertain by one unit in their last place, which is over 1e-4 of the result.
    """
    for steps in COUNTS:
        table = step_table(name, read_schedule(ZERO_SNR), steps)
        expected = draw_by_diffusers(name, ZERO_SNR, steps, 0, seed=7)
        largest = np.abs(TorchRandom(7).randn(SHAPE)).max() * np.float32(table.init_noise_sigma)
        assert np.abs(draw(table, 7) - expected).max() <= np.spacing(largest), steps
        if steps > 2:
            assert compare(name, ZERO_SNR, steps, 2) < 1e-4


def test_karras_timesteps_may_repeat() -> None:
    """Over a cosine schedule the first two fall on one timestep. diffusers then begins at the second sigma and runs
    off the end, unless told where to begin, as image-to-image does. Here every start works.
    """
    config = {**BASE, "beta_schedule": "squaredcos_cap_v2"}
    with pytest.raises(IndexError):
        draw_by_diffusers("dpmpp_2m_karras", config, 20, 0, seed=7)
    rows = step_table("dpmpp_2m_karras", read_schedule(config), 20).rows
    assert len(rows) == 20 and rows[0].timestep == rows[1].timestep
    for start in (1, 2, 10, 19):
        assert compare("dpmpp_2m_karras", config, 20, start) < 1e-4


def test_pndm_calls_the_unet_once_more() -> None:
    """The second call goes back to the first latents. Starts count calls, as diffusers' image-to-image does."""
    schedule = read_schedule(SD15)
    assert [row.timestep for row in step_table("pndm", schedule, 4).rows] == [751, 501, 501, 251, 1]
    assert [row.timestep for row in step_table("pndm", schedule, 4, 3).rows] == [251, 1]
    assert [row.timestep for row in step_table("pndm", schedule, 1).rows] == [1]
    assert compare("pndm", SD15, 4, 4) < 1e-4


def test_noise_is_drawn_for_every_ancestral_step_but_the_last() -> None:
    rows = step_table("euler_ancestral", read_schedule(SD15), 10).rows
    assert [bool(row.c) for row in rows] == [True] * 9 + [False]
    for name in set(sampler_names()) - {"euler_ancestral"}:
        assert not any(row.c for row in step_table(name, read_schedule(SD15), 10).rows)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_a_start_where_hardly_any_noise_is_left_is_said(spacing: str) -> None:
    """One step at "leading" timesteps is at the last of them; Karras' own begin where all is noise."""
    schedule = read_schedule({**SD15, "timestep_spacing": spacing})
    said = {
        (name, steps): describe_start(step_table(name, schedule, steps)) for name in sampler_names() for steps in (1, 2)
    }
    drawn = {"dpmpp_2m", "dpmpp_2m_karras"}
    if spacing == "leading":
        assert {key for key, line in said.items() if line} == {(name, 1) for name in {*sampler_names()} - drawn}
        assert str(said["pndm", 1]).startswith("pndm in 1 step begins at timestep 1, where")
    else:
        assert not any(said.values())
    assert describe_start(step_table("ddim", schedule, 4, start=3)) is None


def test_advance_applies_a_row_in_float32() -> None:
    row = Step(timestep=1, input_scale=1, p=0.5, q=2, a=3, b=(4, 0, -5), c=6)
    x, output, older, oldest, noise = (np.full((1, 4, 1, 1), value, np.float32) for value in (1, 2, 3, 4, 5))
    after, history = advance(row, x, output, (older, oldest), noise)
    assert after.dtype == np.float32 and after[0, 0, 0, 0] == 3 * 1 + 4 * 4.5 - 5 * 4 + 6 * 5
    assert [m[0, 0, 0, 0] for m in history] == [4.5, 3, 4]
    for _ in range(9):
        after, history = advance(row, after, output, history, noise)
    assert len(history) == REACH


def test_a_factor_of_zero_leaves_its_array_out() -> None:
    row = Step(timestep=1, input_scale=1, p=0, q=1, a=0, b=(1, 0), c=0)
    broken = np.full((1,), np.inf, np.float32)
    after, _ = advance(row, broken, np.ones((1,), np.float32), (broken,))
    assert after.tolist() == [1]


def test_runs_the_golden_vectors() -> None:
    golden = json.loads((Path(__file__).parent / "golden/steps.json").read_text())
    assert {case["table"]["sampler"] for case in golden["cases"]} == set(sampler_names())
    for case in golden["cases"]:
        table, shape = unpack_steps(case["table"]), tuple(case["shape"])

        def near(
            array: Latents, expected: list[float], size: tuple[int, ...] = shape, name: str = table.sampler
        ) -> None:
            wanted = np.array(expected, np.float32).reshape(size)
            assert np.abs(array - wanted).max() <= golden["tolerance"] * wanted.std(), name

        ours = step_table(table.sampler, read_schedule(case["scheduler"]), table.steps, table.start)
        assert len(ours.rows) == len(table.rows) == len(case["rows"])
        for mine, row in zip(ours.rows, table.rows, strict=True):
            np.testing.assert_allclose([mine.p, mine.q, mine.a, *mine.b], [row.p, row.q, row.a, *row.b], rtol=1e-6)

        random = TorchRandom(int(case["seed"]))
        noise = random.randn(shape)
        near(noise, case["noise"])
        if table.start:
            image = np.array(case["image"], np.float32).reshape(shape)
            x = np.float32(table.signal_scale) * image + np.float32(table.noise_scale) * noise
        else:
            x = np.float32(table.init_noise_sigma) * noise
        near(x, case["first"])
        history: tuple[Latents, ...] = ()
        for row, expected in zip(table.rows, case["rows"], strict=True):
            near(np.float32(row.input_scale) * x, expected["scaled"])
            assert row.timestep == pytest.approx(expected["timestep"])
            fresh = random.randn(shape) if row.c else None
            if fresh is not None:
                near(fresh, expected["fresh"])
            output = np.array(expected["output"], np.float32).reshape(shape)
            x, history = advance(row, x, output, history, fresh)
            near(x, expected["latents"])


def test_the_folder_is_the_registry() -> None:
    assert sampler_names() == ["ddim", "dpmpp_2m", "dpmpp_2m_karras", "euler", "euler_ancestral", "pndm"]
    with pytest.raises(UserError, match="did you mean euler_ancestral"):
        step_table("euler_ancestrall", read_schedule(SD15), 10)
    with pytest.raises(UserError, match="there are ddim, dpmpp_2m,"):
        step_table("xyz", read_schedule(SD15), 10)
    with pytest.raises(UserError, match="no sampler is called '__init__'"):
        step_table("__init__", read_schedule(SD15), 10)


@pytest.mark.parametrize("name", sorted(set(sampler_names()) - {"dpmpp_2m_karras"}))
def test_refuses_timesteps_beyond_the_training(name: str) -> None:
    with pytest.raises(UserError, match="use fewer steps"):
        step_table(name, read_schedule({**SD15, "timestep_spacing": "leading", "steps_offset": 999}), 10)


def test_refuses_predictions_it_cannot_step() -> None:
    with pytest.raises(UserError, match="pndm accepts epsilon and v_prediction"):
        step_table("pndm", read_schedule({**SD15, "prediction_type": "sample"}), 10)
    with pytest.raises(UserError, match="needs v_prediction"):
        step_table("ddim", read_schedule({**ZERO_SNR, "prediction_type": "epsilon"}), 10)


@pytest.mark.parametrize(
    "config, name",
    [
        ({"_class_name": "PNDMScheduler"}, "pndm"),
        ({"_class_name": "DDIMScheduler"}, "ddim"),
        ({"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True}, "euler"),
        ({"_class_name": "EulerAncestralDiscreteScheduler"}, "euler_ancestral"),
        ({"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": False}, "dpmpp_2m"),
        ({"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True}, "dpmpp_2m_karras"),
    ],
)
def test_default_sampler_is_the_checkpoints_own(config: dict[str, Any], name: str) -> None:
    assert default_sampler(config) == name
    assert name in sampler_names()


@pytest.mark.parametrize("kind", ["UniPCMultistepScheduler", "LMSDiscreteScheduler", "LCMScheduler", None])
def test_default_sampler_takes_no_other_in_its_place(kind: str | None) -> None:
    with pytest.raises(UserError, match=f"scheduler {kind}: choose another with --sampler ddim"):
        default_sampler({"_class_name": kind})


def test_the_last_row_of_pndm_at_timestep_0_adds_nothing() -> None:
    """So an engine may skip that call."""
    for steps in (1, 2, 10, 25):
        row = step_table("pndm", read_schedule({**SD15, "steps_offset": 0}), steps).rows[-1]
        assert (row.timestep, row.a, set(row.b)) == (0.0, 1.0, {0.0})
