"""How near each thing must be to the original: every floor of the gate, decided here before anything is judged.

Floors of graphs are by the precision of their weights and of their arithmetic. What a bundle's own proof measured in
torch moves them: of an artifact stored in float16 up, as far as that storage costs this model less; of one with a
rewrite that changes the model down. A lossy recipe states floors of its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from pocketdiffusion.runtime.bundle.graph_records import Graph
from pocketdiffusion.runtime.bundle.verdicts import Kind, Verdict
from pocketdiffusion.runtime.verify.check import Check, Scope, Tolerance, scope_of
from pocketdiffusion.runtime.verify.controls import medians

FLOORS_DB = {
    ("float32", "float32"): 105.0,
    ("float16", "float32"): 65.0,
    ("float16", "float16"): 58.0,
    ("float32", "float16"): 58.0,  # on a stand-in that computes in float16 whatever the file stores
}  # by storage and arithmetic
MARGIN_DB = 6.0  # other prompts, other steps
# A GPU may round exp, sqrt and division more loosely than IEEE 754: the built-in UNet has 99.8 dB there, 134 on a CPU.
CEILINGS_DB = {"gpu": 90.0}
EXACT_DB = 200.0  # one wrong token id, or one level of one pixel, is far below
NOISE_DB = 130.0  # 1e-6 on values up to about 4
SAMPLER_DB = 105.0  # float32 arithmetic in another order
# Of the worst layer of an artifact that computes in integers, each layer on what the artifact gave it. Measured on the
# built-in model: 69 dB in ONNX, 61 in Core ML, which rounds to float16 on the way, 57 in LiteRT, where a single value
# is off by up to 3.3 % of the peak, one step of its int8.
LAYER_DB = 45.0
PICTURE_FLOORS_DB = {
    "float32": (50.0, 50.0),
    "float16": (35.0, 25.0),
}  # by the lower of storage and arithmetic: median, minimum over prompts


@dataclass(frozen=True)
class Measured:
    """What torch alone loses (dB), of one output: by weights in float16, infinite where they were float16 from the
    beginning; and by rewrites that change the model. None where that was not measured."""

    rounding_db: float | None = None
    changed_db: float | None = None


def floor_db(scope: Scope, measured: Measured = Measured(), recipe_db: float | None = None) -> float:
    """Return the least PSNR (dB), teacher-forced, of one output of a graph.

    65 dB for storage in float16 suits the worst model. Faults hide between that and what the storage of this model
    costs: `measured.rounding_db`. Where it is known and arithmetic is float32, the artifact may err twice as much, and
    no more; never less than float32 itself may, nor than the device.

    `measured.changed_db` says how far a rewrite that changes the model alone takes it from the original. The artifact
    then may be twice as far, where its precision allows less.

    `recipe_db` is the floor that a lossy recipe states, in the place of all that precision asks for.
    """
    floor = FLOORS_DB[scope.storage, scope.arithmetic] if recipe_db is None else recipe_db
    if measured.changed_db is not None:
        floor = min(floor, measured.changed_db - MARGIN_DB)
    if measured.rounding_db is not None and scope.arithmetic == "float32" and recipe_db is None:
        floor = max(floor, min(measured.rounding_db - MARGIN_DB, FLOORS_DB["float32", "float32"]))
    return min(floor, CEILINGS_DB.get(scope.device, inf))


def check_artifact(scope: Scope, graph: Graph, verdicts: Iterable[Verdict] = ()) -> Check:
    """Return the check on an artifact of `graph`, run in the arithmetic and on the device of `scope`. `verdicts` are
    those of the proof: the rungs below the artifacts of the same format move its floors, and no others."""
    measured = _measured(verdicts, scope.format)
    floors = {
        subject: floor_db(scope, measured.get(subject, Measured()), graph.floor_db)
        for subject in (f"{graph.spec.name}.{tensor.name}" for tensor in graph.spec.outputs)
    }
    return Check(Kind.ARTIFACT, Tolerance(floor_db(scope, recipe_db=graph.floor_db), floors), scope)


def check_artifacts(
    graphs: Mapping[str, Mapping[str, Graph]], verdicts: Sequence[Verdict]
) -> dict[tuple[str, str], Check]:
    """Return the check on each artifact of a bundle on this machine, by format and name."""
    return {
        (format, name): check_artifact(scope_of(format, graph), graph, verdicts)
        for format, named in graphs.items()
        for name, graph in named.items()
    }


def check_in_torch(kind: Kind, format: str | None, storage: str = "float32", verdicts: Iterable[Verdict] = ()) -> Check:
    """Return the check on a module in torch, in float32 arithmetic, for artifacts of `format`. Of `verdicts`, those of
    the kind "changed" lower its floors."""
    scope = Scope(format, storage)
    changed = {
        subject: floor_db(scope, replace(measured, rounding_db=None))
        for subject, measured in _measured(verdicts, format).items()
    }
    return Check(kind, Tolerance(floor_db(scope), changed), scope)


def check_stage(floor: float) -> Check:
    """Return the check on a part of the pipeline that is no graph."""
    return Check(Kind.STAGE, Tolerance(floor))


def _measured(verdicts: Iterable[Verdict], format: str | None) -> dict[str, Measured]:
    """What the rungs below the artifacts of `format` measured, by the name of the output."""
    found: dict[str, Measured] = {}
    for verdict in verdicts:
        field = {Kind.ROUNDING: "rounding_db", Kind.CHANGED: "changed_db"}.get(verdict.kind)
        if verdict.format == format and field is not None:
            before = found.get(verdict.subject, Measured())
            found[verdict.subject] = replace(before, **{field: verdict.psnr_db})
    return found


def picture_floors(graphs: Sequence[Graph], arithmetic: str) -> tuple[tuple[float, float], str]:
    """Return the floors of pictures, median and minimum in dB, and the storage that they are for: those of a lossy
    recipe where one of `graphs` has such, else by the least precise of their storage and `arithmetic`."""
    for graph in graphs:
        if graph.picture_floors_db is not None:
            return graph.picture_floors_db, graph.storage
    storage = "float16" if any(graph.storage == "float16" for graph in graphs) else "float32"
    return PICTURE_FLOORS_DB["float16" if "float16" in (storage, arithmetic) else "float32"], storage


def control_floor(controls: Sequence[Mapping[str, float]]) -> float:
    """Return the PSNR (dB) that a median must have to be nearer than each control; -inf without any. A control that
    gives the very same picture, as a step less does in a model that does nothing, is passed over: nothing is nearer."""
    return max((db for db in medians(controls).values() if db < inf), default=-inf)
