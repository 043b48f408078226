"""A checkpoint becomes a bundle. Read this file first: it is the whole product in one pass."""

import resource
import sys
from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from pocketdiffusion.export import layout
from pocketdiffusion.export.backends import emit, holds_float32
from pocketdiffusion.export.checkpoint import open_checkpoint
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.families import components
from pocketdiffusion.export.reference import record
from pocketdiffusion.export.rewritten import judge_conversion, open_rewritten, open_rounded
from pocketdiffusion.export.targets import CHOICES, DEFAULTS, PROFILES, Artifact, Target, load_target
from pocketdiffusion.report import Report, write_report
from pocketdiffusion.runtime.bundle import Bundle, open_unproven, seal
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.gate import ROUNDING, judge, judge_runner, record_verdict
from pocketdiffusion.runtime.manifest import Graph
from pocketdiffusion.runtime.parity import ParityReport
from pocketdiffusion.runtime.runners import load_runner
from pocketdiffusion.runtime.staging import keep_failed, stage
from pocketdiffusion.runtime.trajectory import Trajectory, probe

Say = Callable[[str], None]


def export(
    model: str,
    target_name: str,
    out: Path,
    *,
    recipe: str | None = None,
    format: str | None = None,
    profile: str | None = None,
    width: int | None = None,
    height: int | None = None,
    revision: str | None = None,
    token: str | None = None,
    say: Say = lambda line: None,
) -> Bundle:
    """Exports `model` (built-in name, diffusers folder or hub id) for the phone `target_name` into the folder `out`.

    `recipe` ("fp32", "fp16"), `format` ("onnx", "coreml", "tflite") and `profile` override the target's own,
    `width` and `height` (pixels) the size that the model was trained at. Raises UserError where the input cannot be
    used, and ProofError where an artifact is not equal to the original: then the bundle is kept as `out`.failed, and
    `out` is not written.
    """
    say, seconds = timed(say)
    target = choose(load_target(target_name), recipe, format, profile)
    checkpoint = open_checkpoint(model, revision=revision, token=token, say=say)
    parts = components(checkpoint, width=width, height=height)
    with stage(out) as folder:
        trajectories = record(checkpoint, parts, say=lambda part: say(f"recording the original: {part}"))
        graphs: dict[str, dict[str, Graph]] = {}
        ladder: list[ParityReport] = []
        for artifact in target.artifacts:
            for part in parts:
                ladder += judge_rungs(part, artifact, target, trajectories, folder.parent, say)
                say(f"writing {artifact.format} {part.spec.name}, {artifact.recipe}")
                graph = emit(part, artifact, folder, open_batch=target.open_batch)
                graphs.setdefault(artifact.format, {})[part.spec.name] = graph
        draft = layout.assemble(folder, checkpoint, target, graphs, trajectories)
        seal(folder, draft.model_copy(update={"verdicts": tuple(record_verdict(v) for v in ladder)}))
        bundle = open_unproven(folder)
        verdicts, pictures = judge(bundle, trajectories, lambda part: say(f"verifying {part}"))
        verdicts = [*ladder, *verdicts]
        say("writing the report")
        write_report(folder, Report(bundle.manifest, verdicts, pictures, trajectories, seconds, peak_mb()))
        judged = bundle.manifest.model_copy(update={"verdicts": tuple(record_verdict(v) for v in verdicts)})
        manifest = seal(folder, judged)
        if manifest.bundle_id != judged.bundle_id:
            raise ProofError(f"{out}: a file changed between the proof and the seal: export again")
        failed = [verdict for verdict in verdicts if not verdict.passed]
        if failed:
            kept = keep_failed(folder, out)
            raise ProofError(f"{failed[0].describe()}; {len(failed)} verdicts failed, the bundle is kept as {kept}")
    return Bundle(out, manifest)


def judge_rungs(
    part: Component, artifact: Artifact, target: Target, trajectories: list[Trajectory], disk: Path, say: Say
) -> list[ParityReport]:
    """The ladder below the shipped artifact: the rewritten module in torch, then the artifact in float32, then what
    rounding to float16 costs in torch, which raises the floor of the artifact that ships.

    The artifact in float32 is written below the folder `disk`, for as long as it is judged. Where the format cannot
    hold it, the artifact in float16 is compared with torch holding the same weights instead.
    """
    name = part.spec.name
    few = [probe(t) for t in trajectories]
    say(f"verifying {name} after the rewrites")
    reports = judge_runner(open_rewritten(part, artifact.rewrites), few, format=None, rung="rewrites")
    whole = holds_float32(part, artifact.format)
    if artifact.recipe != "fp32" and whole:
        say(f"verifying {artifact.format} {name}, fp32")
        with TemporaryDirectory(dir=disk) as scratch:
            graph = emit(part, replace(artifact, recipe="fp32"), Path(scratch), open_batch=target.open_batch)
            runner = load_runner(Path(scratch), artifact.format, graph)
            reports += judge_runner(runner, few, format=artifact.format, rung="fp32")
    if artifact.recipe == "fp16":
        say(f"verifying {name} with rounded weights")
        rounded = open_rounded(part, artifact.rewrites)
        reports += judge_runner(rounded, few, format=None, rung=ROUNDING, storage="float16")
        if not whole:
            say(f"verifying {artifact.format} {name} against rounded weights")
            with TemporaryDirectory(dir=disk) as scratch:
                graph = emit(part, artifact, Path(scratch), open_batch=target.open_batch)
                runner = load_runner(Path(scratch), artifact.format, graph)
                reports += judge_conversion(runner, rounded, few, artifact.format)
    return reports


def choose(target: Target, recipe: str | None, format: str | None, profile: str | None) -> Target:
    """The target with the artifacts that the options ask for: `profile` is for the formats that have it.

    Raises UserError at a value that no target knows, and where none of the formats has that profile.
    """
    for option, value in (("recipe", recipe), ("format", format), ("profile", profile)):
        if value is not None and value not in CHOICES[option]:
            near = get_close_matches(value.lower(), CHOICES[option], n=2, cutoff=0.4)
            hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(CHOICES[option])}"
            raise UserError(f"there is no {option} {value}: {hint}")
    artifacts = [a for a in target.artifacts if format in (None, a.format)] or [DEFAULTS[str(format)]]
    if profile is not None and not any(profile in PROFILES[a.format] for a in artifacts):
        known = "; ".join(f"{a.format} has {', '.join(PROFILES[a.format])}" for a in artifacts)
        raise UserError(f"{target.name} takes no artifacts of profile {profile}: {known}")
    return replace(
        target,
        artifacts=tuple(
            replace(a, recipe=recipe or a.recipe, profile=profile if profile in PROFILES[a.format] else a.profile)
            for a in artifacts
        ),
    )


def timed(say: Say) -> tuple[Say, dict[str, float]]:
    """`say`, and a table that it fills: the seconds from each line to the next, by line."""
    seconds: dict[str, float] = {}
    begun: list[tuple[str, float]] = []

    def note(line: str) -> None:
        now = perf_counter()
        for before, start in begun:
            seconds[before] = seconds.get(before, 0) + now - start
        begun[:] = [(line, now)]
        say(line)

    return note, seconds


def peak_mb() -> float:
    """The largest resident memory of this process so far, in MB of 1e6 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
