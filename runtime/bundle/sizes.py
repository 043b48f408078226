"""Comparison of the sizes that a pipeline file states with the tensors of its program."""

from collections.abc import Iterator, Mapping

from pocketdiffusion.runtime.bundle.manifest import Common
from pocketdiffusion.runtime.bundle.tiling import find_tiling
from pocketdiffusion.runtime.graph_spec import Dim, GraphSpec
from pocketdiffusion.runtime.program import DECODE, STAGES

Sizes = Mapping[str, tuple[int, ...]]


def check_sizes(common: Common, specs: Mapping[str, GraphSpec]) -> None:
    """Raise ValueError, which names graph and tensor, if a tensor that is exactly one value of the program has another
    size than latents, picture, tiles and tokenizers state. The first axis, the batch, and open axes are ignored."""
    sizes = value_sizes(common)
    tiles = {**sizes, **tile_sizes(common)}
    for where, value, shape in _ends(common, specs):
        expected = (tiles if where.startswith(f"{DECODE}: ") else sizes).get(value)
        if expected is None:
            continue
        given = shape[1:]
        if len(given) != len(expected) or any(
            isinstance(size, int) and size != told for size, told in zip(given, expected, strict=True)
        ):
            raise ValueError(f"{where} is {list(shape)}, and {value} is {list(expected)} without the batch")


def value_sizes(common: Common) -> Sizes:
    """Return the sizes of host values and results that a bundle states, without the batch axis."""
    latents = common.latents
    plane, picture = (latents.height, latents.width), (3, latents.height * latents.scale, latents.width * latents.scale)
    found = dict.fromkeys(("latents", "scaled_latents", "decoder_latents"), (latents.channels, *plane))
    found |= dict.fromkeys(("model_output", "image_latents"), (latents.channels, *plane))
    found |= {"posterior": (2 * latents.channels, *plane)}
    found |= dict.fromkeys(("picture", "masked_picture", "control_picture", "decoded"), picture)
    sizes: dict[str, tuple[int, ...]] = {**found}
    for number, tokenizer in enumerate(common.tokenizers, 1):
        sizes |= dict.fromkeys((f"tokens/{number}", f"attention_mask/{number}"), (tokenizer.max_length,))
    return sizes


def tile_sizes(common: Common) -> Sizes:
    """Return the sizes of the values of decode that are those of a tile, without the batch axis; none without tiles.
    Raise ValueError if the tiles contradict the latents."""
    tiling = find_tiling(common.latents, common.vae)
    if tiling is None:
        return {}
    height, width = tiling.shape
    latents = common.latents.channels, height, width
    return {"decoder_latents": latents, "decoded": (3, height * tiling.scale, width * tiling.scale)}


def _ends(common: Common, specs: Mapping[str, GraphSpec]) -> Iterator[tuple[str, str, tuple[Dim, ...]]]:
    """Yield the name of a stage, graph and tensor, the value of the program that the tensor is, and the tensor's
    shape."""
    for stage in common.program.stages:
        for call in stage.calls if stage.stage in STAGES else ():
            spec = specs[call.graph]
            inputs = {tensor.name: tensor.shape for tensor in spec.inputs}
            outputs = {tensor.name: tensor.shape for tensor in spec.outputs}
            for tensor, given in call.inputs.items():
                if isinstance(given, str):
                    yield f"{stage.stage}: {call.graph}.{tensor}", given, inputs[tensor]
            for tensor, value in call.outputs.items():
                yield f"{stage.stage}: {call.graph}.{tensor}", value, outputs[tensor]
