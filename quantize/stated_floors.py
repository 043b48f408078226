"""The floors that a bundle states, compared with its recipes': `verify` judges by the bundle's own floors, so none of
them may be lower than the product's."""

from collections.abc import Iterator

from pocketdiffusion.quantize.floors import floor_of, floors_of
from pocketdiffusion.quantize.recipes import recipe_names
from pocketdiffusion.runtime.bundle.bundle import Bundle
from pocketdiffusion.runtime.bundle.manifest import Draft, Graph
from pocketdiffusion.runtime.bundle.verdicts import Kind
from pocketdiffusion.runtime.engines import find_engine
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.program import STAGES, graphs_of
from pocketdiffusion.runtime.verify.tolerances import FLOORS_DB

STORAGE = {"fp32": "float32", "fp16": "float16"}  # of recipes whose floors are the gate's, by storage and arithmetic
LEAST_CHANGED_DB = 76.0  # of a rewrite that changes the model: the least FLOOR_DB of export/rewrites


def check_floors(bundle: Bundle) -> None:
    """Raise ProofError, which names the file and the field, at the first of `floor_faults`."""
    for path, reason in floor_faults(bundle.manifest, has_proof=bundle.manifest.has_proof):
        raise ProofError(f"{bundle.folder / path}: {reason}: export the model again")


def floor_faults(manifest: Draft, *, has_proof: bool) -> Iterator[tuple[str, str]]:
    """Yield files and their faults: floors below those of the graph's recipe, a storage or an arithmetic that the
    recipe does not give, verdicts that are missing, or move floors where they must not."""
    for format, graphs in manifest.graphs.items():
        for name, graph in graphs.items():
            faults = _lossy(manifest, name, graph) if graph.recipe not in STORAGE else _exact(format, graph)
            yield from ((f"pipeline/{format}.json", f"graphs.{name}.{reason}") for reason in faults)
            if has_proof and graph.recipe == "fp16" and graph.arithmetic == "float32":
                judged = {v.subject for v in manifest.verdicts if (v.kind, v.format) == (Kind.ROUNDING, format)}
                for output in graph.spec.outputs:
                    if f"{name}.{output.name}" not in judged:
                        yield (
                            "proof.json",
                            f"no verdict of the rung {Kind.ROUNDING.value} on {name}.{output.name}, of {format}",
                        )
    for verdict in manifest.verdicts:
        if verdict.kind == Kind.CHANGED and verdict.floor_db < LEAST_CHANGED_DB:
            yield (
                "proof.json",
                f"{verdict.subject} may be {verdict.floor_db:g} dB off by a rewrite, where {LEAST_CHANGED_DB:g} is the "
                "least",
            )


def own_floors(manifest: Draft) -> list[str]:
    """Return the recipes of a bundle that came from JSON files: the bundle alone states their floors."""
    names = {graph.recipe for graphs in manifest.graphs.values() for graph in graphs.values()}
    return sorted(name for name in names if not _is_known(name))


def _is_known(recipe: str) -> bool:
    return recipe in STORAGE or (recipe in recipe_names() and floors_of(recipe) is not None)


def _exact(format: str, graph: Graph) -> Iterator[str]:
    """Yield the faults of a graph of fp32 or fp16, whose floors are the gate's."""
    engine = find_engine(format)
    halves = engine is not None and engine.half_arithmetic == "float16" and STORAGE[graph.recipe] == "float16"
    arithmetics = ("float32", "float16") if halves else ("float32",)
    if graph.storage not in (STORAGE[graph.recipe], "float32"):
        yield f"storage is {graph.storage}, where the recipe {graph.recipe} gives {STORAGE[graph.recipe]}"
    if graph.arithmetic not in arithmetics:
        yield f"arithmetic is {graph.arithmetic}, where {graph.recipe} in {format} has {' or '.join(arithmetics)}"
    for field in ("floor_db", "picture_floors_db"):
        if getattr(graph, field) is not None:
            yield f"{field} is {getattr(graph, field)}, where the recipe {graph.recipe} has the gate's own"


def _lossy(manifest: Draft, name: str, graph: Graph) -> Iterator[str]:
    """Yield the faults of a graph whose recipe states floors."""
    if graph.floor_db is None or graph.picture_floors_db is None:
        if (graph.storage, graph.arithmetic) not in FLOORS_DB or _is_known(graph.recipe):
            field = "floor_db" if graph.floor_db is None else "picture_floors_db"
            yield f"{field} is null, where the recipe {graph.recipe} has floors of its own"
        return
    if not _is_known(graph.recipe):
        return
    floors = floors_of(graph.recipe)
    assert floors is not None
    stages = [s.stage for s in manifest.program.stages if s.stage in STAGES and name in graphs_of(s)]
    try:
        floor = floor_of(graph.recipe, floors, name, min(stages, key=STAGES.index) if stages else "")
    except UserError as error:
        yield f"recipe is {graph.recipe}: {error}"
        return
    if graph.floor_db < floor:
        yield f"floor_db is {graph.floor_db:g}, where the recipe {graph.recipe} has {floor:g}"
    for what, stated, least in zip(("median", "minimum"), graph.picture_floors_db, floors.pictures, strict=True):
        if stated < least:
            yield f"picture_floors_db has {stated:g} for the {what}, where the recipe {graph.recipe} has {least:g}"
