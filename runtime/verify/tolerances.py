"""The tolerances of all checks: every floor of the gate is decided here before anything is judged.

The floor of a graph depends on the precision of its weights and of its arithmetic. Measurements in torch, which are in
the bundle's own proof, move it: up for an artifact stored in float16 if this model loses less by that storage, and down
for an artifact with a rewrite that changes the model. A lossy recipe states its own floors."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, log10

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
CEILINGS_DB = {"gpu": 90.0, "webgpu": 90.0}  # by compute unit
EXACT_DB = 200.0  # equality: one wrong token id, or one level of one pixel, is below
NOISE_DB = 130.0  # 1e-6 on values up to about 4
SAMPLER_DB = 105.0  # float32 arithmetic in another order
# Of the worst layer of an artifact that computes in integers, each layer on the artifact's own inputs. Measured on the
# built-in model: 69 dB in ONNX, 61 in Core ML, which rounds to float16 on the way, 57 in LiteRT, where a single value
# is off by up to 3.3 % of the peak, one step of its int8.
LAYER_DB = 45.0
TILES_DB = 35.0  # the original's picture blended of tiles against the one that it decodes in one call
SEAM_DB = -20 * log10(1.1)  # edges at the seams of tiles are at most 1.1 times as strong as elsewhere (tiles.py)
PICTURE_FLOORS_DB = {
    "float32": (50.0, 50.0),
    "float16": (35.0, 25.0),
}  # by the lower of storage and arithmetic: median, minimum over prompts


@dataclass(frozen=True)
class Measured:
    """The PSNR in dB that one output has in torch after weights are rounded to float16 (infinite if they were float16
    from the beginning), and after rewrites that change the model. None if it was not measured."""

    rounding_db: float | None = None
    changed_db: float | None = None


def floor_db(scope: Scope, measured: Measured = Measured(), recipe_db: float | None = None) -> float:
    """Return the least PSNR (dB), teacher-forced, of one output of a graph.

    65 dB for storage in float16 suits the worst model, and faults can hide between that and the loss of this model,
    `measured.rounding_db`. If that is known and arithmetic is float32, the artifact may have twice the error, and no
    more. The floor is never above the floor of float32 or the ceiling of the compute unit.

    `measured.changed_db` is the distance from the original that a rewrite which changes the model causes by itself. The
    artifact may then have twice that error, if this is more than its precision allows.

    `recipe_db` is the floor that a lossy recipe states. It replaces the floor of the precision."""
    floor = FLOORS_DB[scope.storage, scope.arithmetic] if recipe_db is None else recipe_db
    if measured.changed_db is not None:
        floor = min(floor, measured.changed_db - MARGIN_DB)
    if measured.rounding_db is not None and scope.arithmetic == "float32" and recipe_db is None:
        floor = max(floor, min(measured.rounding_db - MARGIN_DB, FLOORS_DB["float32", "float32"]))
    return min(floor, CEILINGS_DB.get(scope.unit, inf))


def check_artifact(scope: Scope, graph: Graph, verdicts: Iterable[Verdict] = ()) -> Check:
    """Return the check on an artifact of `graph`, run in the arithmetic and on the device of `scope`. `verdicts` are
    from the proof: those on the rungs below the artifacts of the same format move its floors."""
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
    """Return the check on a module in torch, in float32 arithmetic, for artifacts of `format`. The `verdicts` of the
    kind "changed" lower its floors."""
    scope = Scope(format, storage)
    changed = {
        subject: floor_db(scope, replace(measured, rounding_db=None))
        for subject, measured in _measured(verdicts, format).items()
    }
    return Check(kind, Tolerance(floor_db(scope), changed), scope)


def check_stage(floor: float) -> Check:
    """Return the check on a part of the pipeline that is not a graph."""
    return Check(Kind.STAGE, Tolerance(floor))


def _measured(verdicts: Iterable[Verdict], format: str | None) -> dict[str, Measured]:
    """Return the measurements of the rungs below the artifacts of `format`, by the name of the output."""
    found: dict[str, Measured] = {}
    for verdict in verdicts:
        field = {Kind.ROUNDING: "rounding_db", Kind.CHANGED: "changed_db"}.get(verdict.kind)
        if verdict.format == format and field is not None:
            before = found.get(verdict.subject, Measured())
            found[verdict.subject] = replace(before, **{field: verdict.psnr_db})
    return found


def picture_floors(graphs: Sequence[Graph], arithmetic: str) -> tuple[tuple[float, float], str]:
    """Return the floors of pictures, median and minimum in dB, and the storage that they are for. The floors are
    the recipe's own if a recipe among `graphs` is lossy, else they follow from the least precise storage and
    `arithmetic`."""
    for graph in graphs:
        if graph.picture_floors_db is not None:
            return graph.picture_floors_db, graph.storage
    storage = "float16" if any(graph.storage == "float16" for graph in graphs) else "float32"
    return PICTURE_FLOORS_DB["float16" if "float16" in (storage, arithmetic) else "float32"], storage


def control_floor(controls: Sequence[Mapping[str, float]]) -> float:
    """Return the highest median PSNR (dB) of a control, above which a median must be; -inf without controls. A control
    with an identical picture (one step less in a model that does nothing) is ignored, because nothing can be closer."""
    return max((db for db in medians(controls).values() if db < inf), default=-inf)
