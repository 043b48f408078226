"""The file of a target: the tables of its TOML, and the record that they become."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from pydantic import (
    BaseModel,
    ConfigDict,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    field_validator,
)
from pydantic import ValidationInfo as Info
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic_core import PydanticCustomError

from pocketdiffusion.export.artifact import Artifact
from pocketdiffusion.export.backends import backend_names, find_backend, profile_names, unit_names
from pocketdiffusion.quantize.recipes import recipe_names
from pocketdiffusion.runtime.devices.standins.arm64 import CORES

REWRITES = Path(__file__).parents[1] / "rewrites"
# The VAE decodes a picture in one piece, in stripes inside of its graph, or in tiles that readers blend.
NONE, EXACT, BLENDED = VAE_TILES = "none", "exact", "blended"
STRIPED = "tiled_decoder"  # the rewrite of EXACT
FACTS = ("soc", "memory_mb", "os_floor")  # each needs its source
CHOICES: Mapping[str, Callable[[], Sequence[str]]] = {
    "format": backend_names,
    "profile": profile_names,
    "recipe": recipe_names,
    "compute_unit": unit_names,
}


@pydantic_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Figure:
    """A published measurement on `device`, as its source states it. This project measured none of these."""

    what: StrictStr
    device: StrictStr
    value: StrictFloat
    unit: StrictStr
    source: StrictStr


@dataclass(frozen=True)
class Target:
    """A phone. `soc`, `memory_mb` (all of its RAM) and `os_floor` (the version that it was sold with) are None if not
    stated.

    `core` is qemu's CPU model that is nearest to the phone's larger cores, for the stand-in arm64. `open_batch` leaves
    the batch of the UNet's graph open, for engines that run both halves of guidance at once. `split_unet` is the number
    of graphs that the UNet becomes, `vae_tiles` one of VAE_TILES. `sources` names, by field, where its fact is
    published.
    """

    name: str
    title: str
    soc: str | None
    memory_mb: int | None
    os: str
    os_floor: str | None
    core: str | None
    open_batch: bool
    artifacts: tuple[Artifact, ...]
    published: tuple[Figure, ...]
    sources: Mapping[str, str]
    split_unet: int = 1
    vae_tiles: str = NONE


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _wrong(text: str) -> PydanticCustomError:
    """Return an error whose text completes the name of a key."""
    return PydanticCustomError("target", "{text}", {"text": text})


class ArtifactTable(_Table):
    """The table [[artifacts]], with the fields of `Artifact`."""

    format: StrictStr
    profile: StrictStr
    recipe: StrictStr
    compute_unit: StrictStr
    rewrites: tuple[StrictStr, ...]

    @field_validator("format", "profile", "recipe", "compute_unit")
    @classmethod
    def _is_known(cls, value: str, info: Info) -> str:
        choices = CHOICES[str(info.field_name)]()
        if value not in choices:
            raise _wrong(f"is {value!r} and must be one of {', '.join(choices)}")
        if info.field_name in ("profile", "compute_unit") and "format" in info.data:
            backend = find_backend(info.data["format"])
            known = backend.profiles if info.field_name == "profile" else backend.compute_units
            if value not in known:
                raise _wrong(f"is {value!r}, and {info.data['format']} has {', '.join(known)}")
        return value

    @field_validator("rewrites", mode="before")
    @classmethod
    def _are_files(cls, value: object, info: Info) -> object:
        if isinstance(value, list):
            if not all(isinstance(name, str) for name in value):
                raise _wrong("must be a list of names")
            known = {file.stem for file in REWRITES.glob("[!_]*.py")}
            for name in value:
                if name not in known:
                    raise _wrong(f"names {name}, and export/rewrites has no such file")
                format = info.data.get("format", "")
                reason = find_backend(format).rewrites_refused.get(name) if format else None
                if reason is not None:
                    raise _wrong(f"names {name}, which {format} cannot have: {reason}")
        return value


class Table(_Table):
    """The complete file, with the fields of `Target`."""

    title: StrictStr
    soc: StrictStr | None = None
    memory_mb: StrictInt | None = None
    os: StrictStr
    os_floor: StrictStr | None = None
    core: StrictStr | None = None
    open_batch: StrictBool
    split_unet: StrictInt = 1
    vae_tiles: StrictStr = NONE
    artifacts: tuple[ArtifactTable, ...]
    published: tuple[Figure, ...] = ()
    sources: dict[str, StrictStr] = {}

    @field_validator("split_unet")
    @classmethod
    def _is_positive(cls, value: int) -> int:
        if value < 1:
            raise _wrong(f"is {value}, and must be 1 or more")
        return value

    @field_validator("vae_tiles")
    @classmethod
    def _is_a_way_to_decode(cls, value: str) -> str:
        if value not in VAE_TILES:
            raise _wrong(f"is {value!r} and must be one of {', '.join(VAE_TILES)}")
        return value

    @field_validator("os_floor")
    @classmethod
    def _is_version(cls, value: str | None, info: Info) -> str | None:
        system = str(info.data.get("os"))
        if value is not None and not re.fullmatch(rf"{re.escape(system)} \d+(\.\d+)*", value):
            raise _wrong(f"is {value!r}, and must be {system} and a version, as in '{system} 14'")
        return value

    @field_validator("core")
    @classmethod
    def _is_core(cls, value: str | None) -> str | None:
        if value is not None and value not in CORES:
            raise _wrong(f"is {value!r} and must be one of {', '.join(CORES)}")
        return value

    @field_validator("artifacts")
    @classmethod
    def _has_artifacts(cls, value: tuple[ArtifactTable, ...]) -> tuple[ArtifactTable, ...]:
        if not value:
            raise _wrong("is empty")
        return value


_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_TYPES = {"string_type": "str", "int_type": "int", "bool_type": "bool", "float_type": "float", "dict_type": "table"}
_TABLES = {"artifacts": ArtifactTable.model_fields, "published": Figure.__dataclass_fields__}


def describe(error: ValidationError) -> str:
    """Return the first mistake of a file in one line that begins with its key: the outermost table first, and in it an
    unknown key, which may be the reason why another is missing."""
    first = min(error.errors(), key=lambda e: (len(e["loc"]), e["type"] not in _UNKNOWN))
    kind, loc, value = first["type"], first["loc"], first["input"]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
    if kind == "target":
        return f"{key} {first['ctx']['text']}"
    if kind in _UNKNOWN:
        known = _TABLES[str(loc[0])] if len(loc) > 1 else Table.model_fields
        near = get_close_matches(str(loc[-1]), known, n=1)
        return f"{key} is not a known key{f', did you mean {near[0]}?' if near else ''}"
    if kind == "missing":
        return f"{key} is missing"
    if kind in ("model_type", "dataclass_type"):
        return f"{key} must be a table"
    return f"{key} must be of type {_TYPES.get(kind, 'list')}, not {type(value).__name__}"
