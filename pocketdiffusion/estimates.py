"""Estimate the sizes, the memory and the time of an export, before torch is imported.

Sizes are exact except for the headers of the files: each weight as the recipe stores it, by `quantized_tensor.nbytes`.
If a recipe decides by measured sensitivities, all weights count as equally sensitive, so that none is kept in float.

Memory and time are estimates by these rules, each with its measurement:

- Weights in memory: bytes per parameter of each storage, from export/backends/*/costs.json. They were counted by
  export/backends/*/memory.py from files of the built-in model (ONNX UNet: 42.1 MB for 10.5 million parameters). While
  onnxruntime loads weights of convolutions in float16, it has them in float32 twice.
- Tensors in memory: `decoder_tensors` tensors of the picture's size with the channels of the autoencoder's second block
  are in memory at once. The built-in decoder has 64 channels there, 64x64 pixels, and 3.15 MB (ONNX) = 3 such tensors.
  The scores of attention are not counted. A decoder for blended tiles has tensors of a tile's size; one in stripes was
  measured with 643 MB instead of 806 (Stable Diffusion 1.5 at 512x512, ONNX).
- A denoising step of the original, both halves: 0.033 s + 4.9e-12 s per parameter of the denoiser and position of the
  latents, on one thread. From the built-in model (0.046 s) and Stable Diffusion 1.5 (62.7 s for 3 steps, of which about
  10 s are text and autoencoder). SDXL, which was not used to fit the rule: 199.7 s for one step and the autoencoder at
  1024x1024 (benchmarks/RESULTS.md); the rule estimates 206 s for the step.
- An export records the original (156 steps for the requests of a full proof with their controls), runs 36 steps of
  rewritten modules in torch and 92 steps of each format's files, whose step needs `step_ratio` times the original's
  time, converts, and needs 15 s for everything else. For the built-in model the rules estimate 41, 99 and 71 CPU s for
  ONNX, TFLite and Core ML; 36, 93 and 80 were measured.

A format without a costs.json was not measured: its memory and the time of the export are not estimated.

The estimates are right within a factor of two, on a processor like the one of benchmarks/RESULTS.md.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from math import prod
from typing import Any

from pocketdiffusion.checkpoint_outline import Outline
from pocketdiffusion.export import backends
from pocketdiffusion.export.prompts import requests
from pocketdiffusion.export.reference.requests import PROOFS
from pocketdiffusion.export.targets import BLENDED, EXACT, Artifact, Target
from pocketdiffusion.export.tile_size import TileSize, choose_tiling
from pocketdiffusion.quantize.qparams import BITS
from pocketdiffusion.quantize.quantized_tensor import nbytes
from pocketdiffusion.quantize.recipe import Recipe, Unmeasured
from pocketdiffusion.quantize.recipe_file import SEARCHED
from pocketdiffusion.quantize.recipes import load_recipe
from pocketdiffusion.quantize.scheme import FLOAT32, Scheme, Weight
from pocketdiffusion.runtime.bundle.verdicts import ProofKind
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.verify.controls import STEPS

STEP_SECONDS, POSITION_SECONDS = 0.033, 4.9e-12  # of a step of the original; per parameter and position of the latents
TORCH_RUNGS = 3  # rewritten modules of each graph, which run a few steps of each picture of the proof
OTHER_SECONDS = 15
STRIPES_SHARE = 643 / 806  # of the decoder's tensors, if it computes in stripes


@dataclass(frozen=True)
class PlannedPart:
    """One part of the checkpoint in one format. `nbytes`: stored size of its weights by the recipe. `memory_bytes`:
    size of its weights in the engine's memory, `loading_bytes`: with the copies that the engine has while it loads
    them; None if it is not known. `calibrated`: activations become integers with calibrated ranges."""

    format: str
    recipe: str
    part: str
    parameters: int
    nbytes: int
    memory_bytes: int | None
    loading_bytes: int | None
    calibrated: bool = False


@dataclass(frozen=True)
class ExportPlan:
    """The estimates of an export of pictures of `width` x `height`, `scale` pixels to a latent. `memory_bytes`: peak
    memory by format with all graphs loaded, None if it is not known; `tensor_bytes`: its tensors of the decoder.
    `stages`: the parts that draw, by stage. `ram_bytes`: memory of the phone, None if the target does not state it.
    `steps`: denoising steps of the original, each with both halves, for `pictures` pictures of the proof;
    `calibration_steps`: those for calibration. `cpu_seconds`: time of the export on one thread, None if it is not
    known. `not_measured`: the formats whose costs were not measured."""

    model: str
    target: str
    width: int
    height: int
    scale: int
    parts: tuple[PlannedPart, ...]
    memory_bytes: Mapping[str, int | None]
    tensor_bytes: Mapping[str, int]
    stages: tuple[tuple[str, ...], ...]
    ram_bytes: int | None
    pictures: int
    steps: int
    calibration_steps: int
    cpu_seconds: float | None
    not_measured: tuple[str, ...] = ()


def plan_export(
    outline: Outline,
    target: Target,
    *,
    budget_mb: float | None = None,
    width: int | None = None,
    height: int | None = None,
    tile_size: int | None = None,
    proof: ProofKind = "full",
) -> ExportPlan:
    """Return the expected sizes, memory and time of an export of the checkpoint for `target`.

    `width` and `height` in pixels, None for the size that the model was trained at. `tile_size`: pixels of blended
    tiles, None for the default. `budget_mb`: size of the recipe "mixed". `proof`: how much is drawn and compared. Raise
    UserError if a recipe or tiles cannot be used, or the parts of the checkpoint are of an unknown kind.
    """
    denoiser, autoencoder = _find_parts(outline)
    channels = outline.configs[autoencoder]["block_out_channels"]
    scale = 2 ** (len(channels) - 1)
    across, down = _latent_size(outline.configs[denoiser], scale, width, height)
    parts = tuple(
        _plan_part(outline, part, artifact, budget_mb) for artifact in target.artifacts for part in outline.shapes
    )
    costs = {artifact.format: read_costs(artifact.format) for artifact in target.artifacts}
    share = decoder_share(target.vae_tiles, down, across, scale, tile_size)
    tensors = across * down * scale**2 * channels[min(1, len(channels) - 1)] * share
    decoder = {
        format: int(cost["decoder_tensors"] * cost["tensor_bytes"] * tensors) for format, cost in costs.items() if cost
    }
    memory: dict[str, int | None] = {}
    for format in costs:
        held = [part.memory_bytes for part in parts if part.format == format]
        memory[format] = None if None in held else sum(each or 0 for each in held) + decoder.get(format, 0)
    parameters = {part: _parameters(shapes) for part, shapes in outline.shapes.items()}
    steps, pictures = original_steps(proof)
    step = STEP_SECONDS + POSITION_SECONDS * parameters[denoiser] * across * down
    known = [cost for cost in costs.values() if cost is not None]
    calibrating = sum(each.steps for each in requests("calibration")) if any(p.calibrated for p in parts) else 0
    seconds = _export_seconds(proof, step, known, sum(parameters.values())) + step * calibrating
    return ExportPlan(
        model=outline.name,
        target=target.name,
        width=across * scale,
        height=down * scale,
        scale=scale,
        parts=parts,
        memory_bytes=memory,
        tensor_bytes=decoder,
        stages=(
            tuple(part for part in outline.shapes if part not in (denoiser, autoencoder)),
            (denoiser,),
            (autoencoder,),
        ),
        ram_bytes=None if target.memory_mb is None else target.memory_mb * 2**20,
        pictures=pictures,
        steps=steps,
        calibration_steps=calibrating,
        cpu_seconds=seconds if len(known) == len(costs) else None,
        not_measured=tuple(format for format, cost in costs.items() if cost is None),
    )


def _export_seconds(proof: ProofKind, step: float, costs: Sequence[Mapping[str, Any]], parameters: int) -> float:
    """Return the CPU time in seconds of an export of `parameters` parameters to the formats with these costs, where a
    step of the original needs `step` seconds."""
    drawn = PROOFS[proof].requests
    rung_steps = PROOFS[proof].rung_steps * len(drawn)
    file_steps = 2 * sum(request.steps for request in drawn) + rung_steps  # all steps twice; a few in fp32
    original = step * (original_steps(proof)[0] + TORCH_RUNGS * rung_steps)
    return OTHER_SECONDS + original + sum(_format_seconds(cost, step * file_steps, parameters) for cost in costs)


def _format_seconds(cost: Mapping[str, Any], seconds: float, parameters: int) -> float:
    """Return the CPU time in seconds of converting `parameters` parameters and running one format's files, where the
    original needs `seconds` for as many steps."""
    converting = cost["convert_seconds"] + 1e-9 * cost["convert_nanoseconds_per_parameter"] * parameters
    return float(seconds * cost["step_ratio"] + converting)


def decoder_share(way: str, down: int, across: int, scale: int, tile_size: int | None = None) -> float:
    """Return the share of its tensors that a decoder of latents of `down` x `across` has in memory at once, if it
    decodes in a `way` of VAE_TILES. `scale`: pixels of a latent on each axis; `tile_size`: pixels of blended tiles,
    None for the default. Raise UserError if tiles are not possible."""
    if way == BLENDED:
        return prod(choose_tiling(down, across, scale, TileSize(tile_size)).shape) / (down * across)
    return STRIPES_SHARE if way == EXACT else 1.0


def original_steps(proof: ProofKind) -> tuple[int, int]:
    """Return the numbers of denoising steps and of pictures that an export records with the original: each of the
    proof's requests and their controls."""
    drawn, controls = PROOFS[proof].requests, PROOFS[proof].controls
    steps = sum((1 + len(controls)) * request.steps - (STEPS in controls) for request in drawn)
    return steps, (1 + len(controls)) * len(drawn)


def read_costs(format: str) -> dict[str, Any] | None:
    """Return the measured time and memory of a format's files: costs.json of its backend, None if it has none."""
    file = files(f"{backends.__name__}.{format}") / "costs.json"
    if not file.is_file():
        return None
    costs: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return costs


def _find_parts(outline: Outline) -> tuple[str, str]:
    """Return the names of the denoiser and the autoencoder, found by their configurations. Raise UserError unless
    there is exactly one of each."""
    coders = [part for part, config in outline.configs.items() if "latent_channels" in config]
    sized = [part for part, config in outline.configs.items() if "sample_size" in config and part not in coders]
    if len(coders) != 1 or len(sized) != 1 or not outline.configs[coders[0]].get("block_out_channels"):
        raise UserError(
            f"{outline.name} cannot be planned: its model_index.json must name exactly one denoiser and one autoencoder"
        )
    return sized[0], coders[0]


def _latent_size(config: Mapping[str, Any], scale: int, width: int | None, height: int | None) -> tuple[int, int]:
    """Return width and height of the latents. Raise UserError if the picture's size is not a multiple of `scale`."""
    own = config["sample_size"]
    own_height, own_width = own if isinstance(own, list) else (own, own)
    wide, high = width or own_width * scale, height or own_height * scale
    if wide % scale or high % scale:
        raise UserError(f"pictures of {wide}x{high} do not fit this model: both must be multiples of {scale}")
    return wide // scale, high // scale


def _plan_part(outline: Outline, part: str, artifact: Artifact, budget_mb: float | None) -> PlannedPart:
    shapes = outline.shapes[part]
    parameters = _parameters(shapes)
    if artifact.recipe == SEARCHED:
        share = parameters / sum(map(_parameters, outline.shapes.values()))
        size = 0 if budget_mb is None else round(1e6 * budget_mb * share)
        return PlannedPart(artifact.format, artifact.recipe, part, parameters, size, None, None)
    schemes = _schemes(load_recipe(artifact.recipe), part, shapes, artifact)
    costs = read_costs(artifact.format) or {}
    weight_bytes, conv_bytes = costs.get("weight_bytes", {}), costs.get("loading_bytes_of_convolutions", {})
    held: list[float | None] = []
    loading = 0.0
    for name, shape in shapes.items():
        scheme = schemes.get(name, FLOAT32)
        each = weight_bytes.get(storage_key(scheme), weight_bytes.get(scheme.storage))
        held.append(None if each is None else each * prod(shape))
        if len(shape) == 4:
            loading += conv_bytes.get(scheme.storage, 0) * prod(shape)
    size = sum(nbytes(shape, schemes.get(name, FLOAT32)) for name, shape in shapes.items())
    memory = None if None in held else int(sum(filter(None, held)))
    most = None if memory is None else memory + int(loading)
    calibrated = any(scheme.activation in BITS for scheme in schemes.values())
    return PlannedPart(artifact.format, artifact.recipe, part, parameters, size, memory, most, calibrated)


def storage_key(scheme: Scheme) -> str:
    """Return the key of a scheme in the `weight_bytes` of costs.json: its storage, and the integers of activations."""
    return scheme.storage if scheme.activation == "float" else f"{scheme.storage}/{scheme.activation}"


def _schemes(
    recipe: Recipe, part: str, shapes: Mapping[str, Sequence[int]], artifact: Artifact
) -> Mapping[str, Scheme]:
    """Return {name in the checkpoint's files: scheme} of the matrices. A recipe from a file names weights by graph."""
    if recipe.schemes is not None:
        told = {name: scheme for schemes in recipe.schemes.values() for name, scheme in schemes.items()}
        return {name: told[full] for name in shapes for full in (name, f"{part}.{name}") if full in told}
    weights = {name: _weight(name, tuple(shape)) for name, shape in shapes.items() if len(shape) > 1}
    return recipe.plan(weights, Unmeasured(part, artifact.format, artifact.profile, weights))


def _weight(name: str, shape: tuple[int, ...]) -> Weight:
    """Return the description of a matrix for a recipe. Its operator is guessed from its rank and name."""
    return Weight(shape, "conv" if len(shape) == 4 else "embedding" if "embedding." in name else "linear")


def _parameters(shapes: Mapping[str, Sequence[int]]) -> int:
    return sum(prod(shape) for shape in shapes.values())
