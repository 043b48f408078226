"""Records of the exported model, of the phone it was exported for, and of the software that exported it."""

from typing import Annotated, Literal

from pydantic import Field

from pocketdiffusion.runtime.record import INFORMS, BundlePath, Record, Sha256, Size


class ModelInfo(Record):
    """The model that was exported."""

    name: str = Field(description="the checkpoint's folder or its id on the hub")
    family: str = Field(description="the kind of model, for people: no reader goes by it")
    pipeline: str = Field(description="the class of diffusers that draws with the original")
    prediction_type: Annotated[Literal["epsilon", "v_prediction", "sample"], INFORMS] = Field(
        description="what the denoiser was trained to predict; the step tables have it in their numbers"
    )
    licence: str = Field(description="the licence of the weights, by the name that the checkpoint gives")
    revision: str | None = Field(description="the commit on the hub; null for a folder")
    fingerprint: Sha256 = Field(description="sha256 over the names and sha256 sums of the original's weight files")
    licence_files: tuple[BundlePath, ...] = Field(
        default=(), description="texts that must travel with the bundle: licences of the weights and the vocabulary"
    )
    licence_url: str | None = Field(
        default=None, description="where the licence's text is, if the checkpoint has only its name; null: not known"
    )
    attribution: str = Field(default="", description="a line for an app's page of credits")


class TargetInfo(Record):
    """The phone that the bundle is for."""

    name: str = Field(description="the target's name")
    title: str = Field(description="the phone's name, for people")
    soc: str | None = Field(description="its processor; null where the target leaves it open")
    memory_mb: Size | None = Field(description="the phone's whole RAM in MB of 2^20 bytes; null where it is open")
    os_floor: str | None = Field(description="the oldest system that it is for; null where it is open")


class Provenance(Record):
    """Versions only: no time, no path, no name of a person or machine."""

    exported_by: str = Field(description="the exporter and its version")
    python: str = Field(description="the version of Python")
    toolchain: dict[str, str] = Field(description="the versions of the packages that took part, by name")
