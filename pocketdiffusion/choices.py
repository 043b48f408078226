"""The options of an export, and their checks before torch is imported, so that mistakes are reported at once."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from pocketdiffusion.export.artifact import Artifact
from pocketdiffusion.export.backends import find_backend, profile_names
from pocketdiffusion.export.targets import BLENDED, EXACT, STRIPED, VAE_TILES, Target, load_target
from pocketdiffusion.quantize.mixed_precision.goal import check_goal
from pocketdiffusion.quantize.recipe_file import SEARCHED
from pocketdiffusion.quantize.recipes import load_recipe
from pocketdiffusion.runtime.bundle.verdicts import ProofKind
from pocketdiffusion.runtime.errors import UserError

ANY_SYSTEM = "any"  # the `os` of a target that is no certain phone
_SCHEME = re.compile(r"[A-Za-z][\w+.-]+:")  # of two characters or more: C: is a drive


@dataclass(frozen=True)
class ExportOptions:
    """The options of an export, None for the default of the phone or the checkpoint.

    `recipe`: a file of quantize/recipes, or a JSON file of one; "mixed" is searched, for weights of `budget_mb` (MB of
    1e6 bytes) or pictures of `min_psnr` (dB). `format` ("onnx", "coreml", "tflite"), `profile`, `split_unet`, the
    number of graphs that the UNet becomes, and `vae_tiles` override the target's own: "none", "exact" for a VAE decoder
    in stripes of rows, or "blended" for one of tiles of `vae_tile_size` pixels. `sampler` overrides the checkpoint's
    scheduler, `width` and `height` (pixels) the trained size. `revision` and `token` are the hub's.
    `allow_unexpected`: shell patterns of unused tensors to ignore.

    `proof` "quick" compares one picture of few steps instead of four of ten. The folder `recordings` keeps the
    original's drawings for the next export of the model. `max_memory`: bytes that the export may use, by default the
    free ones. `report` "full" also measures the error of each single rewrite and activation form.
    """

    recipe: str | None = None
    budget_mb: float | None = None
    min_psnr: float | None = None
    format: str | None = None
    profile: str | None = None
    sampler: str | None = None
    width: int | None = None
    height: int | None = None
    split_unet: int | None = None
    vae_tiles: str | None = None
    vae_tile_size: int | None = None
    revision: str | None = None
    token: str | None = None
    allow_unexpected: Sequence[str] = ()
    proof: ProofKind = "full"
    recordings: Path | None = None
    max_memory: int | None = None
    report: Literal["short", "full"] = "short"


DEFAULTS = ExportOptions()


def check_export(model: str, target_name: str, options: ExportOptions = DEFAULTS) -> Target:
    """Return the target with the artifacts that the options choose. Raise UserError, without reading weights, if a name
    is unknown, options contradict each other, or the checkpoint is not on this disk."""
    chosen = choose(
        load_target(target_name),
        options.recipe,
        options.format,
        options.profile,
        options.split_unet,
        options.vae_tiles,
    )
    check_tile_size(chosen, options.vae_tile_size)
    check_search(chosen, options.budget_mb, options.min_psnr)
    if options.sampler is not None:
        from pocketdiffusion.runtime.sampling.samplers import check_sampler

        check_sampler(options.sampler)
    check_model(model)
    return chosen


def fit_split(
    model: str, chosen: Target, split_unet: int | None, width: int | None, height: int | None
) -> tuple[Target, str]:
    """Return the target with the number of graphs of the UNet that fits the phone's memory, and a line that says so;
    the target as it is and "" if the user gives a number, `split_unet`, nothing must change, or the checkpoint is not
    on this disk."""
    if split_unet is not None or chosen.split_unet > 1 or chosen.memory_mb is None:
        return chosen, ""
    from pocketdiffusion.checkpoint_outline import read_outline
    from pocketdiffusion.default_split import default_split

    try:
        return default_split(read_outline(model), chosen, width, height)
    except UserError:  # a model of another source, or one that the export will refuse
        return chosen, ""


def check_model(name: str) -> None:
    """Raise UserError if `name` is a path that does not exist, or a folder without a checkpoint. Names of another form,
    such as hub ids and names with a scheme (`place:name`), are checked later by the checkpoint sources, which import
    torch."""
    path = Path(name)
    if path.is_dir() and not (path / "model_index.json").is_file():
        if (path / "manifest.json").is_file():
            raise UserError(
                f"{name} is a bundle, and a checkpoint is needed here: give the model that it was made from"
            )
        raise UserError(
            f"{name} is not a diffusers checkpoint: it has no model_index.json; give a folder that `save_pretrained` "
            "wrote"
        )
    if path.exists() or name.count("/") == 1 and not name.startswith(("/", ".", "~")):
        return
    if "/" in name and not _SCHEME.match(name):
        raise UserError(
            f"there is no folder or file {name}, and it is not a Hugging Face id (user/model): check the name"
        )


def choose(
    target: Target,
    recipe: str | None,
    format: str | None,
    profile: str | None,
    split_unet: int | None = None,
    vae_tiles: str | None = None,
) -> Target:
    """Return the target with the artifacts, the parts of the UNet and the tiles of the VAE that the options choose.
    `profile` applies to the formats that have it. `vae_tiles`, a name in VAE_TILES, is how the VAE decodes.

    Raise UserError if a value is unknown, the phone cannot run the format, none of the formats has that
    profile, or `split_unet` is not positive.
    """
    if vae_tiles is not None and vae_tiles not in VAE_TILES:
        raise UserError(f"--vae-tiles {vae_tiles} is not known: give {', '.join(VAE_TILES[:-1])} or {VAE_TILES[-1]}")
    if split_unet is not None and split_unet < 1:
        raise UserError(f"--split-unet {split_unet} is not a number of parts: give 1 or more")
    if recipe is not None:
        load_recipe(recipe)
    if format is not None:
        check_system(target, format)
    if profile is not None and profile not in profile_names():
        near = get_close_matches(profile.lower(), profile_names(), n=2, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(profile_names())}"
        raise UserError(f"there is no profile {profile}: {hint}")
    artifacts = [a for a in target.artifacts if format in (None, a.format)] or [find_backend(str(format)).default]
    profiles = {a.format: find_backend(a.format).profiles for a in artifacts}
    if profile is not None and not any(profile in profiles[a.format] for a in artifacts):
        known = "; ".join(f"{a.format} has {', '.join(profiles[a.format])}" for a in artifacts)
        raise UserError(f"--profile {profile} is not available for {target.name}: {known}")
    return replace(
        target,
        split_unet=target.split_unet if split_unet is None else split_unet,
        vae_tiles=target.vae_tiles if vae_tiles is None else vae_tiles,
        artifacts=tuple(
            replace(
                a,
                recipe=recipe or a.recipe,
                profile=profile if profile is not None and profile in profiles[a.format] else a.profile,
                compute_unit=_unit(a, recipe),
                rewrites=_tiled(a.rewrites, target.vae_tiles, vae_tiles),
            )
            for a in artifacts
        ),
    )


def _tiled(rewrites: tuple[str, ...], own: str, wanted: str | None) -> tuple[str, ...]:
    """Return `rewrites` with the one that decodes in stripes if `wanted`, or without it the target's `own` way to
    decode, is "exact"; without that rewrite if another way is wanted."""
    if (wanted or own) == EXACT:
        return tuple(dict.fromkeys((*rewrites, STRIPED)))
    return rewrites if wanted is None else tuple(name for name in rewrites if name != STRIPED)


def check_tile_size(target: Target, size: int | None) -> None:
    """Raise UserError if a size of tiles, in pixels, is given and tiles are not blended, or it is not positive."""
    if size is not None and target.vae_tiles != BLENDED:
        raise UserError(f"--vae-tile-size is for blended tiles only: give --vae-tiles {BLENDED}")
    if size is not None and size < 1:
        raise UserError(f"--vae-tile-size {size} is not a size: give a number of pixels")


def check_system(target: Target, format: str) -> None:
    """Raise UserError if there is no such format, or the target's system cannot run its files."""
    systems = find_backend(format).systems
    if systems is not None and target.os not in (*systems, ANY_SYSTEM):
        own = " and ".join(dict.fromkeys(artifact.format for artifact in target.artifacts))
        raise UserError(
            f"--format {format} runs on {' and '.join(systems)} only, and {target.name} has {target.os}: leave out "
            f"--format to write {own}, or give a --target with {' or '.join(systems)}"
        )


def describe_added(target: Target, chosen: Target) -> str:
    """Return a sentence on the artifacts of `chosen` in a format that `target` does not list, "" if there are none."""
    listed = {artifact.format for artifact in target.artifacts}
    added = [a for a in chosen.artifacts if a.format not in listed]
    settings = ", ".join(f"{a.format} (profile {a.profile}, recipe {a.recipe}, unit {a.compute_unit})" for a in added)
    return f"the target {target.name} does not list this format: {settings} is written" if added else ""


def _unit(artifact: Artifact, recipe: str | None) -> str:
    """Return the compute unit of an artifact for which the user requests `recipe`: the format's default if that of the
    target computes in float16 only and the recipe is float32."""
    backend = find_backend(artifact.format)
    too_narrow = recipe == "fp32" and artifact.compute_unit in backend.float16_only
    return backend.default.compute_unit if too_narrow else artifact.compute_unit


def one_artifact(target: Target) -> Artifact:
    """Return the artifact to search a recipe for. Raise UserError if the target has several."""
    if len(target.artifacts) > 1:
        formats = " or ".join(artifact.format for artifact in target.artifacts)
        raise UserError(f"{target.name} has several formats, and a recipe is for one: give --format {formats}")
    return target.artifacts[0]


def check_search(target: Target, budget_mb: float | None, min_psnr: float | None) -> None:
    """Raise UserError unless exactly one of `budget_mb` and `min_psnr` is given for the recipe "mixed", and neither for
    other recipes."""
    if any(artifact.recipe == SEARCHED for artifact in target.artifacts):
        check_goal(budget_mb, min_psnr)
    elif (budget_mb, min_psnr) != (None, None):
        raise UserError("--budget-mb and --min-median-psnr are for the recipe mixed only: give --recipe mixed")
