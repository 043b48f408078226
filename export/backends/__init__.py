"""The folder is the registry: backends/NAME/emit.py writes the artifacts of format NAME, and holds

emit(part, artifact, folder, open_batch, plan) -> Graph
LARGEST                       bytes of weights that an artifact may have, None for any number
CONVERTER                     what the backend imports when it converts: module and how to install it; None if nothing
refusal(scheme, profile)      why the format cannot hold a weight in that way, None where it can

backends/NAME/capabilities.py knows what its files ask of an engine, and which compute units run them, and holds

engine(path, graph) -> Engine
units(path, graph) -> dict[str, Unit]
PROVED_ON                     the unit whose own engine the gate runs; None where another program runs the file

and backends/NAME/memory.py  count_memory(path) -> Memory
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from math import prod
from pathlib import Path

from pocketdiffusion.export.backends.taps import find_layers
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.matrices import float_plan
from pocketdiffusion.export.targets import Artifact
from pocketdiffusion.quantize.quantized_tensor import nbytes
from pocketdiffusion.quantize.scheme import Plan, Scheme
from pocketdiffusion.runtime.bundle.graph_needs import Unit
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.errors import UserError

PROVED = "by the verdicts of this bundle's proof, on a computer: it opens only where they passed"


@dataclass(frozen=True)
class Refusal:
    """`reason` completes "Core ML cannot hold it: ..."; `nearest` is the recipe to take instead."""

    reason: str
    nearest: str


def emit(part: Component, artifact: Artifact, folder: Path, *, open_batch: bool, plan: Plan | None = None) -> Graph:
    """Writes one artifact of `part` below `folder`/FORMAT. `plan` says how each weight is stored, by default that of
    the artifact's recipe, "fp32" or "fp16". Raises ProofError where it is not what it should be."""
    backend = import_module(f"{__name__}.{artifact.format}.emit")
    plan = plan or float_plan(part, artifact.recipe)
    graph: Graph = backend.emit(part, artifact, folder, open_batch=open_batch, plan=plan)
    layers = find_layers(folder, artifact.format, graph, plan.schemes)
    known = import_module(f"{__name__}.{artifact.format}.capabilities")
    memory = import_module(f"{__name__}.{artifact.format}.memory")
    path = folder / graph.path
    good = Unit(status="good", evidence="measured_here", note=PROVED)
    proved = {} if known.PROVED_ON is None else {known.PROVED_ON: good}
    return graph.model_copy(
        update={
            "layers": tuple((layer.module, layer.result) for layer in layers),
            "layer_exponents": {
                each.module: part.exponents[each.module] for each in layers if each.module in part.exponents
            },
            "stored": dict(sorted(Counter(scheme.storage for scheme in plan.schemes.values()).items())),
            "floor_db": plan.floor_db,
            "picture_floors_db": plan.picture_floors_db,
            "engine": known.engine(path, graph),
            "memory": memory.count_memory(path),
            "units": {**proved, **known.units(path, graph)},
        }
    )


def find_refusal(schemes: Iterable[Scheme], format: str, profile: str) -> Refusal | None:
    """The first of the reasons why the format cannot hold all of `schemes`, None where it can."""
    backend = import_module(f"{__name__}.{format}.emit")
    refusals = (backend.refusal(scheme, profile) for scheme in dict.fromkeys(schemes))
    return next((refusal for refusal in refusals if refusal is not None), None)


def check_lowered(plan: Plan, artifact: Artifact) -> None:
    """Raises UserError, with the reason and the nearest recipe, where the format cannot hold what `plan` says."""
    refusal = find_refusal(plan.schemes.values(), artifact.format, artifact.profile)
    if refusal is not None:
        raise UserError(
            f"{artifact.format} {artifact.profile} does not take the recipe {plan.recipe}: {refusal.reason}; the "
            f"nearest is {refusal.nearest}"
        )


def check_size(part: Component, plan: Plan, artifact: Artifact) -> None:
    """Raises UserError where the weights of `part`, as `plan` stores them, are more than a file of the format holds."""
    largest: int | None = import_module(f"{__name__}.{artifact.format}.emit").LARGEST
    size = sum(nbytes(ref.shape, plan.of(name, ref.shape)) for name, ref in part.weights.items())
    if largest is not None and size > largest:
        raise UserError(
            f"{artifact.format} does not take {part.spec.name} with the recipe {plan.recipe}: its weights are "
            f"{size / 1e9:.1f} GB, and a file holds {largest / 1e9:.1f}; take a smaller recipe, or another format"
        )


def check_converter(format: str) -> None:
    """Raises UserError, with the command that installs it, where what the format is converted with is not installed."""
    converter: tuple[str, str] | None = import_module(f"{__name__}.{format}.emit").CONVERTER
    if converter is not None and find_spec(converter[0]) is None:
        raise UserError(f"{converter[0].replace('_', '-')} is not installed: {converter[1]}")


def holds_float32(part: Component, format: str) -> bool:
    """Whether an artifact of that format can have the component's weights in float32."""
    largest: int | None = import_module(f"{__name__}.{format}.emit").LARGEST
    return largest is None or sum(4 * prod(ref.shape) for ref in part.weights.values()) <= largest
