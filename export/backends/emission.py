"""Writing and measuring an artifact by its backend, and the checks that come before anything is written."""

from collections import Counter
from collections.abc import Iterable
from importlib.util import find_spec
from math import prod
from pathlib import Path

import torch

from pocketdiffusion.export.artifact import Artifact
from pocketdiffusion.export.backends import find_backend
from pocketdiffusion.export.backends.backend import Refusal
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.matrices import float_plan
from pocketdiffusion.export.rewrites import apply_rewrites, in_parts
from pocketdiffusion.quantize.quantized_tensor import nbytes
from pocketdiffusion.quantize.scheme import Plan, Scheme
from pocketdiffusion.runtime.bundle.graph_needs import Unit
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.errors import UserError

PROVED = "by the verdicts of this bundle's proof, on a computer: it opens only where they passed"


def emit_floats(part: Component, artifact: Artifact, folder: Path, *, open_batch: bool) -> Graph:
    """Write one artifact of `part` as `emit` does, with weights as the artifact's recipe, "fp32" or "fp16", stores
    them."""
    return emit(part, artifact, folder, open_batch=open_batch, plan=float_plan(part, artifact.recipe))


def emit(part: Component, artifact: Artifact, folder: Path, *, open_batch: bool, plan: Plan) -> Graph:
    """Write one artifact of `part` below `folder`/FORMAT and return its record. `plan` decides how each weight is
    stored. Raise ProofError if the file that was written fails a check."""
    backend = find_backend(artifact.format)
    graph = backend.emit(part, artifact, folder, open_batch=open_batch, plan=plan)
    path = folder / graph.path
    layers = backend.layers(path, plan.schemes)
    uses = Counter(layer.module for layer in layers)
    layers = [layer for layer in layers if uses[layer.module] == 1]  # the others are computed in parts
    good = Unit(status="good", evidence="measured_here", note=PROVED)
    proved = {} if backend.proved_on is None else {backend.proved_on: good}
    return graph.model_copy(
        update={
            "layers": tuple((layer.module, layer.result) for layer in layers),
            "layer_exponents": {
                each.module: part.exponents[each.module] for each in layers if each.module in part.exponents
            },
            "stored": dict(sorted(Counter(scheme.storage for scheme in plan.schemes.values()).items())),
            "floor_db": plan.floor_db,
            "picture_floors_db": plan.picture_floors_db,
            "engine": backend.needs(path, graph),
            "memory": backend.count_memory(path),
            "units": {**proved, **backend.units(path, graph)},
        }
    )


def find_refusal(schemes: Iterable[Scheme], format: str, profile: str) -> Refusal | None:
    """Return why the format cannot store weights by the first of `schemes` that it refuses, None if it refuses none."""
    backend = find_backend(format)
    refusals = (backend.refusal(scheme, profile) for scheme in dict.fromkeys(schemes))
    return next((refusal for refusal in refusals if refusal is not None), None)


def check_schemes(plan: Plan, artifact: Artifact) -> None:
    """Raise UserError, with the reason and the nearest recipe, if the format cannot store the weights as `plan`
    says."""
    refusal = find_refusal(plan.schemes.values(), artifact.format, artifact.profile)
    if refusal is not None:
        raise UserError(
            f"{artifact.format} {artifact.profile} cannot use the recipe {plan.recipe}: {refusal.reason}; the "
            f"nearest is {refusal.nearest}"
        )


def check_layers(part: Component, schemes: Iterable[Scheme], artifact: Artifact) -> None:
    """Raise UserError if `part` is to compute in integers and a rewrite computes its layers in parts: integers are
    proved layer by layer, and such a layer has no tensor of its own."""
    names = in_parts(artifact.rewrites)
    if not names or all(scheme.activation == "float" for scheme in schemes):
        return
    with torch.device("meta"):
        changed = apply_rewrites(part.build(), names)
    for name in filter(changed.get, names):
        raise UserError(
            f"{part.spec.name}: {name} computes layers in parts, and the recipe {artifact.recipe} computes in "
            "integers, which are proved layer by layer: use a recipe with arithmetic in floats, or leave out this "
            "rewrite (--vae-tiles none)"
        )


def check_size(part: Component, plan: Plan, artifact: Artifact) -> None:
    """Raise UserError if the weights of `part`, as `plan` stores them, exceed the limit of one file of the format."""
    largest = find_backend(artifact.format).largest
    size = sum(nbytes(ref.shape, plan.of(name, ref.shape)) for name, ref in part.weights.items())
    if largest is not None and size > largest:
        raise UserError(
            f"{artifact.format} cannot store {part.spec.name} with the recipe {plan.recipe}: its weights are "
            f"{size / 1e9:.1f} GB, and a file holds {largest / 1e9:.1f} at most; use a smaller recipe or another format"
        )


def check_converter(format: str) -> None:
    """Raise UserError, with the command that installs it, if the converter of the format is not installed."""
    converter = find_backend(format).converter
    if converter is not None and find_spec(converter.name.replace("-", "_")) is None:
        raise UserError(f"writing {format} needs {converter.name}, which is not installed: run {converter.install}")


def holds_float32(part: Component, format: str) -> bool:
    """Return True if one file of the format can store the component's weights in float32."""
    largest = find_backend(format).largest
    return largest is None or sum(4 * prod(ref.shape) for ref in part.weights.values()) <= largest
