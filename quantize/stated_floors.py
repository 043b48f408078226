"""Check the floors that a bundle states against the floors of its recipes: `verify` judges by the bundle's own
floors, so none of them may be lower than this product's."""

from collections.abc import Iterator

from pocketdiffusion.quantize.floors import CHANGED_DB, floor_of
from pocketdiffusion.quantize.recipes import load_recipe, recipe_names
from pocketdiffusion.runtime.bundle.bundle import Bundle
from pocketdiffusion.runtime.bundle.manifest import Graph, UnsealedManifest
from pocketdiffusion.runtime.bundle.verdicts import Kind
from pocketdiffusion.runtime.engines import find_engine
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.program import STAGES, graphs_of
from pocketdiffusion.runtime.verify.tolerances import FLOORS_DB

STORAGE = {"fp32": "float32", "fp16": "float16"}  # the storage of recipes for which the gate's floors apply


def check_floors(bundle: Bundle) -> None:
    """Raise ProofError, with the file and the field, if `floor_faults` finds a fault."""
    for path, reason in floor_faults(bundle.manifest, has_proof=bundle.manifest.has_proof):
        raise ProofError(f"{bundle.folder / path}: {reason}: export the model again")


def floor_faults(manifest: UnsealedManifest, *, has_proof: bool) -> Iterator[tuple[str, str]]:
    """Yield each file and its fault: a floor below the recipe's, a storage or an arithmetic that the recipe does not
    have, a verdict that is missing, or a rewrite's floor that is too low."""
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
        if verdict.kind == Kind.CHANGED and verdict.floor_db < CHANGED_DB:
            yield (
                "proof.json",
                f"the floor of {verdict.subject} after a rewrite is {verdict.floor_db:g} dB, and must be "
                f"{CHANGED_DB:g} or more",
            )


def own_floors(manifest: UnsealedManifest) -> list[str]:
    """Return the recipes of a bundle that came from JSON files: only the bundle states their floors."""
    names = {graph.recipe for graphs in manifest.graphs.values() for graph in graphs.values()}
    return sorted(name for name in names if not _is_known(name))


def _is_known(recipe: str) -> bool:
    return recipe in STORAGE or (recipe in recipe_names() and load_recipe(recipe).floors is not None)


def _exact(format: str, graph: Graph) -> Iterator[str]:
    """Yield the faults of a graph of fp32 or fp16, for which the gate's floors apply."""
    engine = find_engine(format)
    halves = engine is not None and engine.half_arithmetic == "float16" and STORAGE[graph.recipe] == "float16"
    arithmetics = ("float32", "float16") if halves else ("float32",)
    if graph.storage not in (STORAGE[graph.recipe], "float32"):
        yield f"storage is {graph.storage}, but the recipe {graph.recipe} has {STORAGE[graph.recipe]}"
    if graph.arithmetic not in arithmetics:
        yield f"arithmetic is {graph.arithmetic}, but {graph.recipe} in {format} has {' or '.join(arithmetics)}"
    for field in ("floor_db", "picture_floors_db"):
        if getattr(graph, field) is not None:
            yield f"{field} is {getattr(graph, field)}, but the recipe {graph.recipe} has the gate's own"


def _lossy(manifest: UnsealedManifest, name: str, graph: Graph) -> Iterator[str]:
    """Yield the faults of a graph whose recipe has its own floors."""
    if graph.floor_db is None or graph.picture_floors_db is None:
        if (graph.storage, graph.arithmetic) not in FLOORS_DB or _is_known(graph.recipe):
            field = "floor_db" if graph.floor_db is None else "picture_floors_db"
            yield f"{field} is null, but the recipe {graph.recipe} has its own floors"
        return
    if not _is_known(graph.recipe):
        return
    floors = load_recipe(graph.recipe).floors
    assert floors is not None
    stages = [s.stage for s in manifest.program.stages if s.stage in STAGES and name in graphs_of(s)]
    try:
        floor = floor_of(graph.recipe, floors, name, min(stages, key=STAGES.index) if stages else "")
    except UserError as error:
        yield f"recipe is {graph.recipe}: {error}"
        return
    if graph.floor_db < floor:
        yield f"floor_db is {graph.floor_db:g}, but the recipe {graph.recipe} has {floor:g}"
    for what, stated, least in zip(("median", "minimum"), graph.picture_floors_db, floors.pictures, strict=True):
        if stated < least:
            yield f"picture_floors_db has {stated:g} for the {what}, but the recipe {graph.recipe} has {least:g}"
