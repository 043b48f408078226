"""The folder is the registry: backends/NAME/emit.py writes the artifacts of format NAME, and holds

emit(part, artifact, folder, open_batch, plan) -> Graph
LARGEST                       bytes of weights that an artifact may have, None for any number
refusal(scheme, profile)      why the format cannot hold a weight in that way, None where it can

backends/NAME/capabilities.py knows what its files ask of an engine, and which compute units run them, and holds

engine(path, graph) -> Engine
units(path, graph) -> dict[str, Unit]
PROVED_ON                     the unit whose own engine the gate runs; None where another program runs the file

and backends/NAME/memory.py  count_memory(path) -> Memory
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from math import prod
from pathlib import Path
from platform import machine

from pocketdiffusion.export.backends.taps import find_layers
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.planned import float_plan
from pocketdiffusion.export.targets import Artifact
from pocketdiffusion.quantize.scheme import Plan, Scheme
from pocketdiffusion.runtime.bundle.graph_needs import Unit
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.verify.metrics import ParityReport

Graphs = Mapping[str, Mapping[str, Graph]]


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
            "units": known.units(path, graph),
        }
    )


def note_proved(graphs: Graphs, verdicts: Sequence[ParityReport]) -> dict[str, dict[str, Graph]]:
    """Return `graphs`, by format and name, whose `units` say too what the gate found on the unit that it ran: good
    where every verdict of `verdicts` on the artifact as it ships passed. A format that another program ran in the
    engine's stead is left as it is."""
    noted: dict[str, dict[str, Graph]] = {}
    for format, named in graphs.items():
        unit = import_module(f"{__name__}.{format}.capabilities").PROVED_ON
        noted[format] = dict(named)
        for name, graph in named.items():
            shipped = {f"{name}.{tensor.name}" for tensor in graph.spec.outputs}
            found = [v for v in verdicts if v.subject in shipped and (v.rung, v.format) == (graph.recipe, format)]
            if unit is None or not found or graph.engine is None:
                continue
            worst = min(found, key=lambda verdict: verdict.psnr_db - verdict.floor_db)
            proved = Unit(
                status="good" if all(verdict.passed for verdict in found) else "bad",
                evidence="measured_here",
                note=f"{graph.engine.name} {graph.engine.tried} on {machine()}: {worst.psnr_db:.1f} dB, "
                f"floor {worst.floor_db:.0f} dB",
            )
            noted[format][name] = graph.model_copy(update={"units": {**graph.units, unit: proved}})
    return noted


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


def holds_float32(part: Component, format: str) -> bool:
    """Whether an artifact of that format can have the component's weights in float32."""
    largest: int | None = import_module(f"{__name__}.{format}.emit").LARGEST
    return largest is None or sum(4 * prod(ref.shape) for ref in part.weights.values()) <= largest
