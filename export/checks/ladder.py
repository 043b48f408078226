"""The ladder of an export: the rungs below the artifact that ships show which of them costs how much."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

from pocketdiffusion.export.backends import find_backend
from pocketdiffusion.export.backends.emission import emit_floats, holds_float32
from pocketdiffusion.export.backends.intermediate_outputs import open_layers
from pocketdiffusion.export.checks.kept_rungs import keep_rungs, read_rungs, rungs_file
from pocketdiffusion.export.checks.layerwise import judge_teacher_forced
from pocketdiffusion.export.float16.audit import EmittedGraph
from pocketdiffusion.export.original import Original
from pocketdiffusion.export.quantization import open_quantized
from pocketdiffusion.export.reference.torch_runner import TorchRunner, open_rewritten, open_rounded
from pocketdiffusion.export.rewrites import changed_floor_db, changes
from pocketdiffusion.export.targets import Target
from pocketdiffusion.runtime.bundle.verdicts import Kind, Verdict
from pocketdiffusion.runtime.engines import load_runner
from pocketdiffusion.runtime.progress import Progress
from pocketdiffusion.runtime.runner import Runner
from pocketdiffusion.runtime.verify.check import Check, Scope, Tolerance
from pocketdiffusion.runtime.verify.gate import judge_graph
from pocketdiffusion.runtime.verify.tolerances import FLOORS_DB, LAYER_DB, check_in_torch, floor_db


@dataclass(frozen=True)
class Rung:
    """One rung: its subject in words, its check, and how to open the runner that is judged. The expected outputs are
    the original's or, if `reference` is given, those of the runner that it opens. `by_layer`: each layer of the
    artifact that ships is compared with the layer of `reference`, a module in torch."""

    title: str
    check: Check
    open: Callable[[], Runner]
    reference: Callable[[], TorchRunner] | None = None
    by_layer: bool = False


def judge_rungs(
    fitted: EmittedGraph, target: Target, original: Original, folder: Path, progress: Progress
) -> list[Verdict]:
    """Judge the rungs below the shipped artifact, which is in `folder`, in the order of `list_rungs`. At most one
    runner and its reference are open at a time. Where the original's recording is kept, so are the verdicts, which are
    found again for the same artifact."""
    few, recording = original.for_rungs, original.recording
    kept = None if recording is None else rungs_file(recording, fitted, folder, few, target.open_batch)
    found = None if kept is None else read_rungs(kept)
    if found is not None:
        progress(f"reading kept verdicts on the rungs below {fitted.artifact.format} {fitted.part.spec.name}")
        return [*found, *fitted.verdicts]
    verdicts: list[Verdict] = []
    with TemporaryDirectory(dir=folder.parent) as scratch:
        for rung in list_rungs(fitted, target, folder, Path(scratch), verdicts):
            progress(f"verifying {rung.title}")
            reference = None if rung.reference is None else rung.reference()
            if rung.by_layer:
                assert reference is not None
                layers = open_layers(folder, fitted.artifact.format, fitted.graph)
                verdicts.append(judge_teacher_forced(rung.check, reference, layers, few, fitted.plan))
            else:
                verdicts += judge_graph(replace(rung.check, reference=reference), rung.open(), few)
    if kept is not None:
        keep_rungs(kept, verdicts)
    return [*verdicts, *fitted.verdicts]


def list_rungs(
    fitted: EmittedGraph, target: Target, folder: Path, scratch: Path, below: Sequence[Verdict]
) -> Iterator[Rung]:
    """Yield the rungs: the rewritten module in torch, the artifact in float32, the module in torch with the stored
    weights, and the artifact that ships against a module with the same weights.

    Rewrites that change this part of the model come after the others, with the floor that they declare; the artifact in
    float32, which is written into `scratch`, is then compared with the changed module. `below` receives the verdicts on
    the rungs that were yielded: they are read for the floors of the next ones. The loss by rounding to float16 raises
    the floor of the artifact that ships."""
    part, artifact, plan = fitted.part, fitted.artifact, fitted.plan
    name, format, float32_fits = part.spec.name, artifact.format, holds_float32(part, artifact.format)
    shipped = partial(load_runner, folder, format, fitted.graph)
    same_weights = Check(Kind.SAME_WEIGHTS, Tolerance(FLOORS_DB["float32", "float32"]), Scope(format))
    changing = changes(rewrite for rewrite, count in fitted.graph.rewrites.items() if count)
    exact = [rewrite for rewrite in artifact.rewrites if rewrite not in changing]
    rewritten = cache(partial(open_rewritten, part, artifact.rewrites))
    yield Rung(f"{name} after the rewrites", check_in_torch(Kind.REWRITES, None), partial(open_rewritten, part, exact))
    if changing:
        floor = Tolerance(changed_floor_db(changing))
        yield Rung(
            f"{name} as {' and '.join(changing)} changes it", Check(Kind.CHANGED, floor, Scope(format)), rewritten
        )
    if artifact.recipe == "fp32" and changing:
        yield Rung(f"{format} {name} against the changed module", same_weights, shipped, rewritten)
    elif artifact.recipe != "fp32" and float32_fits:
        scope = Scope(format, recipe="fp32")
        check = Check(Kind.ARTIFACT, Tolerance(floor_db(scope)), scope)
        float32 = partial(_open_float32, fitted, target, scratch)
        yield Rung(f"{format} {name}, fp32", check, float32, rewritten if changing else None)
    if plan.floor_db is not None:
        yield from list_quantized(fitted, folder)
    elif artifact.recipe == "fp16":
        check = check_in_torch(Kind.ROUNDING, format, "float16", below)
        yield Rung(f"{name} with rounded weights", check, partial(open_rounded, fitted.original, artifact.rewrites))
        if not float32_fits:
            rounded = partial(open_rounded, part, artifact.rewrites)
            yield Rung(f"{format} {name} against rounded weights", same_weights, shipped, rounded)


def _open_float32(fitted: EmittedGraph, target: Target, scratch: Path) -> Runner:
    """Write the artifact in float32 into `scratch`, and open it."""
    artifact = replace(fitted.artifact, recipe="fp32")
    graph = emit_floats(fitted.part, artifact, scratch, open_batch=target.open_batch)
    return load_runner(scratch, artifact.format, graph)


def list_quantized(fitted: EmittedGraph, folder: Path) -> Iterator[Rung]:
    """Yield the rungs of a lossy recipe: the module in torch as the recipe stores it, against the recipe's floor; then
    the artifact against torch with the same stored weights: its outputs, by the floor of its arithmetic with float32
    storage, or, if it computes in integers, its layers."""
    graph, plan, format = fitted.graph, fitted.plan, fitted.artifact.format
    name, rewrites = fitted.part.spec.name, fitted.artifact.rewrites if plan.activation == "float" else ()
    litert, stored = find_backend(format).xnnpack_rounding, Scope(format, graph.storage)
    torch = cache(partial(open_quantized, fitted.original, rewrites, plan, litert=litert))
    shipped = partial(load_runner, folder, format, graph)
    check = Check(Kind.QUANTIZED, Tolerance(floor_db(stored, recipe_db=plan.floor_db)), stored)
    yield Rung(f"{name} with weights as {plan.recipe} stores them", check, torch)
    if plan.activation == "float":
        same = torch if fitted.part is fitted.original else partial(open_quantized, fitted.part, rewrites, plan)
        check = Check(Kind.SAME_WEIGHTS, Tolerance(FLOORS_DB["float32", graph.arithmetic]), Scope(format))
        yield Rung(f"{format} {name} against the same stored weights", check, shipped, same)
    else:
        check = Check(Kind.SAME_INTEGERS, Tolerance(LAYER_DB), replace(stored, arithmetic=graph.arithmetic))
        yield Rung(f"{format} {name}, layer by layer", check, shipped, torch, by_layer=True)
