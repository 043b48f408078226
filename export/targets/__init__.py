"""The phones: one TOML file each, in this folder. Adding a file adds a target. Nothing here needs torch. Its
keys are

    title, os, open_batch         required; open_batch: true only if the engine runs both halves of guidance in one call
    soc, memory_mb, os_floor      facts; each is left out, or has its address in [sources]. os_floor begins with os
    core                          the phone's processor by its name in qemu, for the stand-in arm64
    split_unet, vae_tiles         the number of graphs of the UNet, and how the VAE decodes; may be left out
    [[artifacts]]                 format, profile, recipe, compute_unit, rewrites
    [[published]]                 measurements of others: what, device, value, unit, source

Begin an artifact from the format's BACKEND.default. Rewrites are applied in the order of the list, split_einsum before
fused_attention. TFLite lowers no operator of a rewrite: it needs rewrites with BODIES.
"""

import tomllib
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from pocketdiffusion.export.artifact import Artifact as Artifact
from pocketdiffusion.export.targets.target import (
    BLENDED,
    EXACT,
    FACTS,
    NONE,
    STRIPED,
    VAE_TILES,
    Figure,
    Table,
    Target,
    describe,
)
from pocketdiffusion.runtime.errors import UserError

FOLDER = Path(__file__).parent
__all__ = [
    "BLENDED",
    "EXACT",
    "NONE",
    "FOLDER",
    "STRIPED",
    "VAE_TILES",
    "Artifact",
    "Figure",
    "Target",
    "load_target",
    "target_names",
]


def target_names(folder: Path = FOLDER) -> list[str]:
    """Return the names of all targets, sorted."""
    return sorted(file.stem for file in folder.glob("*.toml"))


def load_target(name: str, folder: Path = FOLDER) -> Target:
    """Return the target in `name`.toml. Raise UserError for an unknown name (with the nearest known ones), and for a
    wrong file, naming the key."""
    names = target_names(folder)
    if name not in names:
        near = get_close_matches(name.lower(), names, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(names)}"
        raise UserError(f"there is no target {name}: {hint}")
    file = folder / f"{name}.toml"
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file.name}: {error}") from None
    table = _validate(file.name, content)
    for key in (*table.sources, *(key for key in FACTS if getattr(table, key) is not None)):
        if key not in content or key not in table.sources:
            raise UserError(f"{file.name}: sources.{key} must name the source of a fact that the file states")
    artifacts = tuple(Artifact(**dict(row)) for row in table.artifacts)
    return Target(name=name, **{**dict(table), "artifacts": artifacts, "sources": MappingProxyType(table.sources)})


def _validate(file: str, content: Any) -> Table:
    """Return the checked table. Raise UserError, naming file and key, if a key is missing, unknown, or of the wrong
    type."""
    try:
        return Table.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{file}: {describe(error)}") from None
