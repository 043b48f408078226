"""The ladder below the artifact that ships: which of its rungs cost what."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from pocketdiffusion.export.backends import find_backend
from pocketdiffusion.export.backends.emission import emit, holds_float32
from pocketdiffusion.export.backends.taps import open_layers
from pocketdiffusion.export.checks.layerwise import judge_forced
from pocketdiffusion.export.float16.audit import Fitted
from pocketdiffusion.export.quantization import open_quantized
from pocketdiffusion.export.reference.torch_runner import open_rewritten, open_rounded
from pocketdiffusion.export.rewrites import changed_floor_db, changes
from pocketdiffusion.export.targets import Target
from pocketdiffusion.runtime.engines import load_runner
from pocketdiffusion.runtime.verify.gate import CHANGED, ROUNDING, judge_runner
from pocketdiffusion.runtime.verify.metrics import FLOORS_DB, ParityReport
from pocketdiffusion.runtime.verify.recording import Trajectory

SAME_WEIGHTS = "same weights"  # the rung of an artifact beside torch with the weights that it stores
SAME_INTEGERS = "same integers"  # of one that computes in integers, each layer on what the artifact gave it
QUANTIZED = "quantized"  # the rung that tells what a lossy recipe costs, measured in torch

Say = Callable[[str], None]


def judge_rungs(fitted: Fitted, target: Target, few: list[Trajectory], folder: Path, say: Say) -> list[ParityReport]:
    """The ladder below the shipped artifact: the rewritten module in torch, then the artifact in float32, then what
    rounding to float16 costs in torch, which raises the floor of the artifact that ships, then its replay in float16.

    Rewrites that change this part of the model come after the others, against the floor that they declare; the artifact
    in float32 is then compared with the changed module. Where that is not what ships, it is written beside `folder`,
    which holds the graph that ships, for as long as it is judged; where the format cannot hold it, the graph that ships
    is compared with torch holding the same float16 weights instead.
    """
    part, artifact = fitted.part, fitted.artifact
    name, format = part.spec.name, artifact.format
    changing = changes(rewrite for rewrite, count in fitted.graph.rewrites.items() if count)
    say(f"verifying {name} after the rewrites")
    exact = open_rewritten(part, [rewrite for rewrite in artifact.rewrites if rewrite not in changing])
    reports = judge_runner(exact, few, format=None, rung="rewrites")
    changed = open_rewritten(part, artifact.rewrites) if changing else None
    if changed is not None:
        say(f"verifying {name} as {' and '.join(changing)} changes it")
        floor = changed_floor_db(changing)
        reports += judge_runner(changed, few, format=format, rung=CHANGED, floor=floor)
    whole = holds_float32(part, format)
    if artifact.recipe == "fp32" and changed is not None:
        say(f"verifying {format} {name} against the changed module")
        runner = load_runner(folder, format, fitted.graph)
        reports += judge_runner(runner, few, format=format, rung=SAME_WEIGHTS, reference=changed)
    elif whole and artifact.recipe != "fp32":
        say(f"verifying {format} {name}, fp32")
        with TemporaryDirectory(dir=folder.parent) as scratch:
            graph = emit(part, replace(artifact, recipe="fp32"), Path(scratch), open_batch=target.open_batch)
            runner = load_runner(Path(scratch), format, graph)
            reports += judge_runner(runner, few, format=format, rung="fp32", reference=changed)
    if fitted.plan.floor_db is not None:
        say(f"verifying {name} with what {fitted.plan.recipe} leaves of it")
        reports += judge_quantized(fitted, few, folder)
    elif artifact.recipe == "fp16":
        say(f"verifying {name} with rounded weights")
        rounded = open_rounded(fitted.original, artifact.rewrites)
        changed_db = {report.subject: report.psnr_db for report in reports if report.rung == CHANGED}
        reports += judge_runner(rounded, few, format=format, rung=ROUNDING, storage="float16", changed_db=changed_db)
        if not whole:
            say(f"verifying {format} {name} against rounded weights")
            runner, stored = load_runner(folder, format, fitted.graph), open_rounded(part, artifact.rewrites)
            reports += judge_runner(runner, few, format=format, rung=SAME_WEIGHTS, reference=stored)
    return [*reports, *fitted.verdicts]


def judge_quantized(fitted: Fitted, few: list[Trajectory], folder: Path) -> list[ParityReport]:
    """What a lossy recipe costs in torch, against its own floor; and the artifact beside torch with the very weights
    that it stores: as a whole by the floor of an exact one, or, where it computes in integers, layer by layer."""
    graph, plan, artifact = fitted.graph, fitted.plan, fitted.artifact
    format, exact = artifact.format, plan.activation == "float"
    rewrites = artifact.rewrites if exact else ()
    torch = open_quantized(fitted.original, rewrites, plan, litert=find_backend(format).xnnpack_rounding)
    reports = judge_runner(torch, few, format=format, rung=QUANTIZED, storage=graph.storage, recipe_db=plan.floor_db)
    if not exact:
        layers, storage, arithmetic = open_layers(folder, format, graph), graph.storage, graph.arithmetic
        worst = judge_forced(torch, layers, few, plan=plan, rung=SAME_INTEGERS, storage=storage, arithmetic=arithmetic)
        return [*reports, worst]
    runner = load_runner(folder, format, graph)
    same = torch if fitted.part is fitted.original else open_quantized(fitted.part, rewrites, plan)
    floor = FLOORS_DB["float32", graph.arithmetic]
    return reports + judge_runner(runner, few, format=format, rung=SAME_WEIGHTS, reference=same, floor=floor)
