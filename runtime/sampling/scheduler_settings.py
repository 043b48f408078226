"""The settings of a scheduler_config.json that samplers follow, and those that no sampler here can follow."""

from collections.abc import Mapping
from math import inf
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.invalid import describe_invalid


def _must_be_off(value: bool) -> bool:
    if value:
        raise ValueError("no sampler here can follow it: set it to false")
    return value


Off = Annotated[bool, AfterValidator(_must_be_off)]


class PlainSettings(BaseModel):
    """Settings that change the arithmetic in ways that no sampler here implements, with the values that do not."""

    thresholding: Off = False
    use_exponential_sigmas: Off = False
    use_beta_sigmas: Off = False
    use_lu_lambdas: Off = False
    use_flow_sigmas: Off = False
    use_dynamic_shifting: Off = False
    interpolation_type: Literal["linear"] = "linear"
    timestep_type: Literal["discrete"] = "discrete"
    variance_type: Literal["fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"] = "fixed_small"


PLAIN = tuple(PlainSettings.model_fields)


class SchedulerSettings(PlainSettings):
    """All settings that samplers read, with the names and defaults of diffusers. For a setting that is None each
    sampler has its own default. Settings of other schedulers are ignored, and `clip_sample` is too, since diffusers'
    Stable Diffusion pipelines turn it off."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    num_train_timesteps: Annotated[int, Field(ge=1)] = 1000
    beta_start: Annotated[float, Field(gt=0)] = 0.0001
    beta_end: Annotated[float, Field(gt=0)] = 0.02
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    trained_betas: list[float] | None = None
    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon"
    timestep_spacing: Literal["leading", "linspace", "trailing"] | None = None
    steps_offset: int = 0
    set_alpha_to_one: bool | None = None
    rescale_betas_zero_snr: bool = False
    use_karras_sigmas: bool = False
    sigma_min: float | None = None
    sigma_max: float | None = None
    final_sigmas_type: Literal["zero", "sigma_min"] = "zero"
    lower_order_final: bool = True
    euler_at_final: bool = False
    lambda_min_clipped: float = -inf

    @model_validator(mode="before")
    @classmethod
    def _read_null(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Read null as the default, but as false where diffusers only tests the setting for truth."""
        given = {name: value for name, value in fields.items() if value is not None}
        return given | ({"lower_order_final": False} if fields.get("lower_order_final", True) is None else {})


def read_settings(config: Mapping[str, Any]) -> SchedulerSettings:
    """Read the content of a scheduler_config.json. Raise UserError, which names the field and its valid values, for a
    value that is unknown or that no sampler here can follow."""
    try:
        return SchedulerSettings.model_validate(dict(config))
    except ValidationError as error:
        raise UserError(f"scheduler_config.json: {describe_invalid(error)}: correct it") from None
