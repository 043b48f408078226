from typing import Any

import numpy as np
import pytest
from diffusers import DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler

from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.sampling.schedule import accumulate_alphas, read_schedule, select_timesteps
from pocketdiffusion.runtime.sampling.sigmas import sigmas_at, training_sigmas

SD15 = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
SCHEDULES: tuple[dict[str, Any], ...] = (
    {},
    SD15,
    {"beta_schedule": "linear", "num_train_timesteps": 501},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"trained_betas": [0.1, 0.2, 0.3], "num_train_timesteps": 3},
    {**SD15, "beta_start": 0.001, "trained_betas": None},
)


@pytest.mark.parametrize("config", SCHEDULES)
def test_alphas_are_those_of_diffusers(config: dict[str, Any]) -> None:
    """To one part in ten million: on processors that torch does not serve with fused multiply-add it rounds twice."""
    expected = DDIMScheduler.from_config(config)
    schedule = read_schedule(config)
    assert schedule.alphas_cumprod.dtype == np.float32
    assert schedule.train_steps == len(expected.betas)
    np.testing.assert_allclose(schedule.betas, expected.betas.numpy(), rtol=1.2e-7)
    np.testing.assert_allclose(schedule.alphas_cumprod, expected.alphas_cumprod.numpy(), rtol=2.4e-7)


@pytest.mark.parametrize("config", SCHEDULES)
def test_zero_snr_is_that_of_diffusers(config: dict[str, Any]) -> None:
    """To 1e-5: near the end the rescaling subtracts nearly equal numbers, and torch's square root is off by a bit."""
    config = {**config, "rescale_betas_zero_snr": True}
    schedule = read_schedule(config)
    assert schedule.alphas_cumprod[-1] == 0
    expected = DDIMScheduler.from_config(config).alphas_cumprod.numpy()
    np.testing.assert_allclose(schedule.alphas_cumprod, expected, rtol=1e-5)
    sigmas = np.asarray(EulerDiscreteScheduler.from_config(config).sigmas)[-2::-1].astype(np.float64)
    np.testing.assert_allclose(1 / (1 + training_sigmas(schedule) ** 2), 1 / (1 + sigmas**2), rtol=1e-5)
    assert training_sigmas(schedule)[-1] == pytest.approx(4096)
    raw = PNDMScheduler.from_config(config).alphas_cumprod.numpy()
    np.testing.assert_allclose(accumulate_alphas(schedule.betas), raw, rtol=2.4e-7)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_timesteps_are_those_of_diffusers(spacing: str) -> None:
    config = {**SD15, "timestep_spacing": spacing, "steps_offset": 1}
    schedule = read_schedule(config)
    ddim, euler = DDIMScheduler.from_config(config), EulerDiscreteScheduler.from_config(config)
    for steps in (1, 2, 3, 7, 20, 30, 50, 333, 999):
        ddim.set_timesteps(steps)
        euler.set_timesteps(steps)
        ours = select_timesteps(schedule, steps, "leading")
        assert ours.round().tolist() == ddim.timesteps.tolist()
        assert ours.astype(np.float32).tolist() == euler.timesteps.tolist()
        np.testing.assert_allclose(sigmas_at(schedule, ours), euler.sigmas[:-1].numpy(), rtol=1e-6)


def test_a_checkpoints_spacing_goes_before_the_samplers() -> None:
    assert select_timesteps(read_schedule({}), 4, "leading").tolist() == [750, 500, 250, 0]
    assert select_timesteps(read_schedule({}), 4, "trailing").tolist() == [999, 749, 499, 249]
    assert select_timesteps(read_schedule({"timestep_spacing": "trailing"}), 4, "leading").tolist()[0] == 999


def test_absent_settings_and_null_mean_the_default() -> None:
    schedule = read_schedule({"lambda_min_clipped": None, "prediction_type": None, "timestep_spacing": None})
    assert (schedule.prediction_type, schedule.timestep_spacing, schedule.steps_offset) == ("epsilon", None, 0)
    assert schedule.lambda_min_clipped == -np.inf
    assert schedule.set_alpha_to_one is None and schedule.lower_order_final and not schedule.euler_at_final


@pytest.mark.parametrize(
    "setting",
    [
        {"beta_schedule": "sigmoid"},
        {"prediction_type": "flow_prediction"},
        {"timestep_spacing": "karras"},
        {"final_sigmas_type": "one"},
        {"thresholding": True},
        {"use_beta_sigmas": True},
        {"use_flow_sigmas": True},
        {"interpolation_type": "log_linear"},
        {"timestep_type": "continuous"},
        {"variance_type": "learned_range"},
        {"beta_end": 1.5},
        {"trained_betas": []},
        {"num_train_timesteps": 0},
        {"num_train_timesteps": "many"},
        {"steps_offset": "one"},
    ],
)
def test_refuses_a_setting_it_cannot_follow(setting: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="scheduler_config.json") as caught:
        read_schedule({**SD15, **setting})
    message = str(caught.value)
    assert "\n" not in message and any(word in message for word in (*setting, "betas"))


def test_refuses_steps_outside_the_training() -> None:
    for steps in (0, -1, 1001):
        with pytest.raises(UserError, match="from 1 to 1000"):
            select_timesteps(read_schedule(SD15), steps, "leading")
    with pytest.raises(UserError, match="use fewer steps"):
        select_timesteps(read_schedule({**SD15, "steps_offset": 1}), 1000, "leading")
