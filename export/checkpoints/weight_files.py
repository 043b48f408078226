"""The choice of a component's weight files: those that diffusers and transformers read themselves.

diffusers follows NAME.safetensors.index.json if there is one, transformers only if there is no NAME.safetensors
(diffusers/models/modeling_utils.py `from_pretrained`, transformers/modeling_utils.py `_get_resolved_checkpoint_files`).
Both read every shard that the index names, completely, and no other file.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pocketdiffusion.export.checkpoints.text_files import IncompleteError
from pocketdiffusion.runtime.errors import UserError

PICKLED = (".bin", ".ckpt", ".pt", ".pth")
STEMS = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}
_PICKLED_STEMS = {"diffusers": "diffusion_pytorch_model", "transformers": "pytorch_model"}


@dataclass(frozen=True)
class WeightFiles:
    """`files` are names in the component's folder, in the order of reading. `variant`, such as "fp16", is the argument
    with which diffusers' `from_pretrained` reads them; None is the default."""

    files: tuple[str, ...]
    variant: str | None = None


def choose_weights(
    folder: str,
    library: str,
    names: Collection[str],
    read_index: Callable[[str], dict[str, Any]],
    preferred: str | None = None,
) -> WeightFiles:
    """Return the files to read among `names`, the file names in the folder of a component of `library`, "diffusers" or
    "transformers". `read_index` returns the content of an index by its name.

    A folder without full weights is read in its variant `fp16`, or in the only variant that it has; a folder that has
    the variant `preferred` is read in it, as diffusers does if it is given a variant for another component. Raise
    UserError, naming `folder`, if there is nothing to read, if a shard is missing, and if the weights that diffusers
    would read are pickled.
    """
    first = () if preferred is None else (preferred,)
    for variant in (*first, None, *_variants(folder, library, names)):
        for name in _candidates(library, variant):
            if name in names:
                files = (name,) if name.endswith(".safetensors") else _shards(folder, name, names, read_index(name))
                return WeightFiles(files, variant)
        if variant is None:
            stem = _PICKLED_STEMS[library]
            full = [name for name in (f"{stem}.bin", f"{stem}.bin.index.json") if name in names]
            if full:
                raise pickle_error(f"{folder}/{full[0]}")
    stem = STEMS[library]
    if any(re.fullmatch(rf"{stem}-\d+-of-\d+\.safetensors", name) for name in names):
        raise IncompleteError(f"{folder} has shards and no {stem}.safetensors.index.json, which names them")
    pickled = sorted(name for name in names if name.endswith(PICKLED))
    raise (
        pickle_error(f"{folder}/{pickled[0]}")
        if pickled
        else IncompleteError(f"{folder} has no safetensors file with the name that {library} reads, {stem}.safetensors")
    )


def is_index(library: str, name: str) -> bool:
    """Return True if `name` is the name of an index that `choose_weights` may read."""
    return name.startswith(f"{STEMS[library]}.safetensors.") and name.endswith(".json")


def pickle_error(file: str) -> UserError:
    """Return the error for a pickled file, with the way to convert it to safetensors."""
    load = "from_single_file" if file.endswith(".ckpt") else "from_pretrained"
    return UserError(
        f"{file} is a pickle, which can run any code when it is opened. If you trust it, convert it once: "
        f"StableDiffusionPipeline.{load}(...).save_pretrained(DIR, safe_serialization=True)"
    )


def _candidates(library: str, variant: str | None) -> tuple[str, ...]:
    """Return the names of files and indexes in the order in which the library searches for them."""
    stem = STEMS[library]
    if variant is None:
        single, indexes = f"{stem}.safetensors", [f"{stem}.safetensors.index.json"]
    else:  # diffusers has a second, older name for the index of a variant
        single = f"{stem}.{variant}.safetensors"
        indexes = [f"{stem}.safetensors.index.{variant}.json"]
        indexes += [f"{stem}.safetensors.{variant}.index.json"] if library == "diffusers" else []
    return (*indexes, single) if library == "diffusers" else (single, *indexes)


def _variants(folder: str, library: str, names: Collection[str]) -> tuple[str, ...]:
    """Return the variant to read if there are no full weights, or nothing. Raise UserError if several could be
    meant."""
    stem = STEMS[library]
    patterns = (
        r"\.([^.]+)\.safetensors",
        r"\.safetensors\.index\.([^.]+)\.json",
        r"\.safetensors\.([^.]+)\.index\.json",
    )
    matches = [re.fullmatch(re.escape(stem) + pattern, name) for name in names for pattern in patterns]
    found = sorted({match[1] for match in matches if match})
    if "fp16" in found:
        return ("fp16",)
    if len(found) > 1 and not any(name in names for name in _candidates(library, None)):
        raise UserError(
            f"{folder} has only variants, {' and '.join(found)}: rename the one to read to {stem}.safetensors"
        )
    return tuple(found[:1])


def _shards(folder: str, index: str, names: Collection[str], content: dict[str, Any]) -> tuple[str, ...]:
    """Return the shards that an index names, sorted, as both libraries read them."""
    placed = content.get("weight_map")
    if not isinstance(placed, dict) or not placed or not all(isinstance(shard, str) for shard in placed.values()):
        raise UserError(f"{folder}/{index}: weight_map does not name the shard of each tensor: copy it again")
    if not isinstance(content.get("metadata"), dict):
        raise UserError(f'{folder}/{index} has no metadata, and diffusers cannot read it without: add "metadata": {{}}')
    shards = sorted(set(placed.values()))
    for shard in shards:
        if PurePosixPath(shard).name != shard or "\\" in shard:
            raise UserError(f"{folder}/{index} names {shard!r}, which is not a file name: copy it again")
        if shard.endswith(PICKLED):
            raise pickle_error(f"{folder}/{shard}")
        if shard not in names:
            raise IncompleteError(f"{folder} has no {shard}, which {index} names: copy it again")
    return tuple(shards)
