"""The phones: one TOML file each, in this folder. Adding a file adds a target. Nothing here needs torch."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pocketdiffusion.quantize.recipes import recipe_names
from pocketdiffusion.runtime.errors import UserError

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Artifact:
    """What to emit: the format, its dialect, the precision, the unit it is meant to run on, the rewrites before it."""

    format: str  # "onnx", "coreml", "tflite"
    profile: str  # "ort": onnxruntime's own operators too; "std": the standard's alone; "ios17": from that system on
    recipe: str  # a file of quantize/recipes, or the path of a JSON file of one
    compute_unit: str  # "cpu", "gpu", "ane": Apple's Neural Engine, "npu": Qualcomm's
    rewrites: tuple[str, ...]  # files of export/rewrites
    islands: tuple[str, ...] = ()  # results that stay float32 in a graph of float16: found by the range audit


@dataclass(frozen=True)
class Figure:
    """A published measurement, as its source states it, on `device`: nothing that this project measured."""

    what: str
    device: str
    value: float
    unit: str
    source: str


@dataclass(frozen=True)
class Target:
    """A phone. `soc`, `memory_mb` (all of its RAM) and `os_floor` (what it shipped with) are None where left open.

    `core` is the processor that qemu has nearest to the phone's larger ones, for the stand-in arm64.
    `open_batch` leaves the batch of the UNet's graph open, for engines that run both halves of guidance at once.
    `sources` says, by field, where its fact is published.
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


# Of each table: the keys, their types, and whether they may be left out.
_TARGET: Mapping[str, tuple[type, bool]] = {
    "title": (str, False),
    "soc": (str, True),
    "memory_mb": (int, True),
    "os": (str, False),
    "os_floor": (str, True),
    "core": (str, True),
    "open_batch": (bool, False),
    "artifacts": (list, False),
    "published": (list, True),
    "sources": (dict, True),
}
_ARTIFACT: Mapping[str, tuple[type, bool]] = {
    "format": (str, False),
    "profile": (str, False),
    "recipe": (str, False),
    "compute_unit": (str, False),
    "rewrites": (list, False),
}
_FIGURE: Mapping[str, tuple[type, bool]] = {
    "what": (str, False),
    "device": (str, False),
    "value": (float, False),
    "unit": (str, False),
    "source": (str, False),
}
CHOICES = {
    "format": ("onnx", "coreml", "tflite"),
    "profile": ("ort", "std", "ios16", "ios17", "ios18"),
    "recipe": tuple(recipe_names()),
    "compute_unit": ("cpu", "gpu", "ane", "npu"),
}
PROFILES = {"onnx": ("ort", "std"), "coreml": ("ios16", "ios17", "ios18"), "tflite": ("std",)}
REWRITES = Path(__file__).parents[1] / "rewrites"
_MARKED = ("fused_attention", "quick_gelu")
_FLAT = ("chunked_attention", "centred_group_norm", "centred_layer_norm", "quick_gelu")
# What a format is where the user asks a phone for one that its file does not name.
DEFAULTS = {
    "onnx": Artifact("onnx", "ort", "fp16", "cpu", _MARKED),
    "coreml": Artifact("coreml", "ios17", "fp16", "gpu", _MARKED),
    "tflite": Artifact("tflite", "std", "fp16", "gpu", _FLAT),
}
_FACTS = ("soc", "memory_mb", "os_floor")  # each needs its source


def target_names(folder: Path = FOLDER) -> list[str]:
    """All targets, in the order of the alphabet."""
    return sorted(file.stem for file in folder.glob("*.toml"))


def load_target(name: str, folder: Path = FOLDER) -> Target:
    """Read `name`.toml. Raises UserError for an unknown name (with the nearest known), and for a wrong file and key."""
    names = target_names(folder)
    if name not in names:
        near = get_close_matches(name.lower(), names, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(names)}"
        raise UserError(f"there is no target {name}: {hint}")
    file = folder / f"{name}.toml"
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file.name}: {error}") from None
    _check(file.name, "", table, _TARGET)
    sources = table.get("sources", {})
    for key in (*sources, *(key for key in _FACTS if key in table)):
        if key not in table or not isinstance(sources.get(key), str):
            raise UserError(f"{file.name}: sources.{key} must name the source of a fact that the file states")
    if not table["artifacts"]:
        raise UserError(f"{file.name}: artifacts is empty")
    return Target(
        name=name,
        title=table["title"],
        soc=table.get("soc"),
        memory_mb=table.get("memory_mb"),
        os=table["os"],
        os_floor=table.get("os_floor"),
        core=table.get("core"),
        open_batch=table["open_batch"],
        artifacts=tuple(_artifact(file.name, f"artifacts[{i}].", row) for i, row in enumerate(table["artifacts"])),
        published=tuple(
            _figure(file.name, f"published[{i}].", row) for i, row in enumerate(table.get("published", []))
        ),
        sources=MappingProxyType(sources),
    )


def _artifact(file: str, where: str, row: Any) -> Artifact:
    _check(file, where, row, _ARTIFACT)
    for key, choices in CHOICES.items():
        if row[key] not in choices:
            raise UserError(f"{file}: {where}{key} is {row[key]!r} and must be one of {', '.join(choices)}")
    if row["profile"] not in PROFILES[row["format"]]:
        known = ", ".join(PROFILES[row["format"]])
        raise UserError(f"{file}: {where}profile is {row['profile']!r}, and {row['format']} has {known}")
    if not all(isinstance(name, str) for name in row["rewrites"]):
        raise UserError(f"{file}: {where}rewrites must be a list of names")
    for name in row["rewrites"]:
        if not (REWRITES / f"{name}.py").is_file():
            raise UserError(f"{file}: {where}rewrites names {name}, which is no file of export/rewrites")
    return Artifact(**{**row, "rewrites": tuple(row["rewrites"])})


def _figure(file: str, where: str, row: Any) -> Figure:
    _check(file, where, row, _FIGURE)
    return Figure(**row)


def _check(file: str, where: str, table: Any, fields: Mapping[str, tuple[type, bool]]) -> None:
    """Raises UserError, naming file and key, unless the table has the required keys, no others, of the right types."""
    if not isinstance(table, dict):
        raise UserError(f"{file}: {where.rstrip('.')} must be a table")
    for key in table:
        if key not in fields:
            near = get_close_matches(key, fields, n=1)
            raise UserError(f"{file}: {where}{key} is no known key{f', did you mean {near[0]}?' if near else ''}")
    for key, (kind, optional) in fields.items():
        if key not in table:
            if not optional:
                raise UserError(f"{file}: {where}{key} is missing")
        elif type(table[key]) is not kind:
            raise UserError(f"{file}: {where}{key} must be of type {kind.__name__}, not {type(table[key]).__name__}")
