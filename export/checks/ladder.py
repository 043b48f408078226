"""The ladder of an export: the rungs below the artifact that ships show which of them costs how much."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from pocketdiffusion.export.backends import find_backend
from pocketdiffusion.export.backends.emission import emit, holds_float32
from pocketdiffusion.export.backends.intermediate_outputs import open_layers
from pocketdiffusion.export.checks.layerwise import judge_teacher_forced
from pocketdiffusion.export.float16.audit import EmittedGraph
from pocketdiffusion.export.quantization import open_quantized
from pocketdiffusion.export.reference.torch_runner import TorchRunner, open_rewritten, open_rounded
from pocketdiffusion.export.rewrites import changed_floor_db, changes
from pocketdiffusion.export.targets import Target
from pocketdiffusion.runtime.bundle.verdicts import Kind, Verdict
from pocketdiffusion.runtime.engines import load_runner
from pocketdiffusion.runtime.progress import Progress
from pocketdiffusion.runtime.verify.check import Check, Scope, Tolerance
from pocketdiffusion.runtime.verify.gate import judge_graph
from pocketdiffusion.runtime.verify.recording import Trajectory
from pocketdiffusion.runtime.verify.tolerances import FLOORS_DB, LAYER_DB, check_in_torch, floor_db


def judge_rungs(
    fitted: EmittedGraph, target: Target, few: list[Trajectory], folder: Path, progress: Progress
) -> list[Verdict]:
    """Judge the rungs below the shipped artifact: the rewritten module in torch, the artifact in float32, the module in
    torch with the stored weights, and the replay of the artifact in float16.

    Rewrites that change this part of the model are judged after the others, against the floor that they declare; the
    artifact in float32 is then compared with the changed module. The loss by rounding to float16 raises the floor of
    the artifact that ships. `folder` holds the graph that ships."""
    part, artifact = fitted.part, fitted.artifact
    name, format, float32_fits = part.spec.name, artifact.format, holds_float32(part, artifact.format)
    changing = changes(rewrite for rewrite, count in fitted.graph.rewrites.items() if count)
    progress(f"verifying {name} after the rewrites")
    exact = open_rewritten(part, [rewrite for rewrite in artifact.rewrites if rewrite not in changing])
    verdicts = judge_graph(check_in_torch(Kind.REWRITES, None), exact, few)
    changed = open_rewritten(part, artifact.rewrites) if changing else None
    if changed is not None:
        progress(f"verifying {name} as {' and '.join(changing)} changes it")
        floor = Tolerance(changed_floor_db(changing))
        verdicts += judge_graph(Check(Kind.CHANGED, floor, Scope(format)), changed, few)
    if artifact.recipe == "fp32" and changed is not None:
        progress(f"verifying {format} {name} against the changed module")
        verdicts += _judge_same_weights(fitted, changed, few, folder)
    elif artifact.recipe != "fp32" and float32_fits:
        progress(f"verifying {format} {name}, fp32")
        verdicts += _judge_float32(fitted, target, changed, few, folder)
    if fitted.plan.floor_db is not None:
        progress(f"verifying {name} with weights as {fitted.plan.recipe} stores them")
        verdicts += judge_quantized(fitted, few, folder)
    elif artifact.recipe == "fp16":
        progress(f"verifying {name} with rounded weights")
        rounded = open_rounded(fitted.original, artifact.rewrites)
        verdicts += judge_graph(check_in_torch(Kind.ROUNDING, format, "float16", verdicts), rounded, few)
        if not float32_fits:
            progress(f"verifying {format} {name} against rounded weights")
            verdicts += _judge_same_weights(fitted, open_rounded(part, artifact.rewrites), few, folder)
    return [*verdicts, *fitted.verdicts]


def _judge_same_weights(
    fitted: EmittedGraph, reference: TorchRunner, few: list[Trajectory], folder: Path
) -> list[Verdict]:
    """Compare the graph that ships with a torch module of the same stored weights, by the floor of float32."""
    format = fitted.artifact.format
    floor = Tolerance(FLOORS_DB["float32", "float32"])
    check = Check(Kind.SAME_WEIGHTS, floor, Scope(format), reference)
    return judge_graph(check, load_runner(folder, format, fitted.graph), few)


def _judge_float32(
    fitted: EmittedGraph, target: Target, changed: TorchRunner | None, few: list[Trajectory], folder: Path
) -> list[Verdict]:
    """Emit the artifact in float32 into a temporary folder next to `folder`, and judge it."""
    artifact = replace(fitted.artifact, recipe="fp32")
    with TemporaryDirectory(dir=folder.parent) as scratch:
        graph = emit(fitted.part, artifact, Path(scratch), open_batch=target.open_batch)
        runner = load_runner(Path(scratch), artifact.format, graph)
        scope = Scope(artifact.format, recipe=artifact.recipe)
        return judge_graph(Check(Kind.ARTIFACT, Tolerance(floor_db(scope)), scope, changed), runner, few)


def judge_quantized(fitted: EmittedGraph, few: list[Trajectory], folder: Path) -> list[Verdict]:
    """Judge the module in torch as a lossy recipe stores it, against the recipe's floor; then the artifact against
    torch with the same stored weights: its outputs by the floor of float32 storage, or, if it computes in integers,
    layer by layer."""
    graph, plan, artifact = fitted.graph, fitted.plan, fitted.artifact
    format, exact = artifact.format, plan.activation == "float"
    rewrites = artifact.rewrites if exact else ()
    torch = open_quantized(fitted.original, rewrites, plan, litert=find_backend(format).xnnpack_rounding)
    stored = Scope(format, graph.storage)
    verdicts = judge_graph(
        Check(Kind.QUANTIZED, Tolerance(floor_db(stored, recipe_db=plan.floor_db)), stored), torch, few
    )
    if not exact:
        scope = replace(stored, arithmetic=graph.arithmetic)
        check = Check(Kind.SAME_INTEGERS, Tolerance(LAYER_DB), scope)
        return [*verdicts, judge_teacher_forced(check, torch, open_layers(folder, format, graph), few, plan)]
    runner = load_runner(folder, format, graph)
    same = torch if fitted.part is fitted.original else open_quantized(fitted.part, rewrites, plan)
    exact_floor = Tolerance(FLOORS_DB["float32", graph.arithmetic])
    return verdicts + judge_graph(Check(Kind.SAME_WEIGHTS, exact_floor, Scope(format), same), runner, few)
