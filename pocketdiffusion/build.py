"""A checkpoint becomes a bundle. Read this file first: it is the whole product in one pass."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from pocketdiffusion.choices import check_search, choose
from pocketdiffusion.export import bundle_writer as layout
from pocketdiffusion.export.checks.ladder import judge_rungs
from pocketdiffusion.export.float16.audit import emit_fitted
from pocketdiffusion.export.targets import Target, load_target
from pocketdiffusion.planning import check_recipes, find_recipes, plan_artifacts
from pocketdiffusion.quantize.recipe import Recipe
from pocketdiffusion.reports.export import Report, write_report
from pocketdiffusion.reports.findings import Findings, find
from pocketdiffusion.runtime.bundle.bundle import Bundle, open_unproven, seal
from pocketdiffusion.runtime.bundle.file_table import PROOF
from pocketdiffusion.runtime.bundle.manifest import Graph, Manifest
from pocketdiffusion.runtime.bundle.staging import check_place, keep_failed, scratch_beside, stage
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.memory import own_peak_bytes
from pocketdiffusion.runtime.verify.gate import judge, record_verdict
from pocketdiffusion.runtime.verify.metrics import ParityReport, blame
from pocketdiffusion.runtime.verify.recording import probe
from pocketdiffusion.source import Original, open_model, record_original

Say = Callable[[str], None]


def export(
    model: str,
    target_name: str,
    out: Path,
    *,
    recipe: str | None = None,
    budget_mb: float | None = None,
    min_psnr: float | None = None,
    format: str | None = None,
    profile: str | None = None,
    sampler: str | None = None,
    width: int | None = None,
    height: int | None = None,
    revision: str | None = None,
    token: str | None = None,
    allow_unexpected: Sequence[str] = (),
    say: Say = lambda line: None,
) -> Bundle:
    """Exports `model` (built-in name, diffusers folder or hub id) for the phone `target_name` into the folder `out`.

    `recipe` (a file of quantize/recipes, or a JSON file of one), `format` ("onnx", "coreml", "tflite") and `profile`
    override the target's own, `sampler` the checkpoint's scheduler, `width` and `height` (pixels) the size that the
    model was trained at. `allow_unexpected` are shell patterns of tensors that nothing uses, which are then passed
    over. Raises UserError
    where the input cannot be used, and ProofError where an artifact is not equal to the original: then the bundle is
    kept as `out`.failed, and `out` is not written.

    The recipe "mixed" is searched, for weights of `budget_mb` (MB of 1e6 bytes) or pictures of `min_psnr` (dB).
    """
    say, seconds = timed(say)
    target = choose(load_target(target_name), recipe, format, profile)
    check_search(target, budget_mb, min_psnr)
    check_place(out)
    options: dict[str, Any] = {"revision": revision, "token": token, "allow_unexpected": allow_unexpected, "say": say}
    checkpoint, parts = open_model(model, width=width, height=height, sampler=sampler, **options)
    check_recipes(parts, target.artifacts)
    with scratch_beside(out):
        original = record_original(checkpoint, parts, say)
        recipes = find_recipes(original, target, budget_mb, min_psnr, say)
        return export_original(original, target, out, recipes=recipes, say=say, seconds=seconds)


def export_original(
    original: Original,
    target: Target,
    out: Path,
    *,
    recipes: Sequence[Recipe] | None = None,
    say: Say = lambda line: None,
    seconds: Mapping[str, float] = {},
) -> Bundle:
    """As `export`, of a model that was recorded. `recipes` are those of the target's artifacts, by default the ones
    that it names; `seconds` is for the report: it is read at the end."""
    recipes = find_recipes(original, target, None, None, say) if recipes is None else recipes
    trajectories = original.trajectories
    with stage(out) as folder:
        graphs: dict[str, dict[str, Graph]] = {}
        ladder: list[ParityReport] = []
        findings: dict[str, dict[str, Findings]] = {}
        few = [probe(trajectory) for trajectory in trajectories]
        calibration = None
        planned = plan_artifacts(original, target.artifacts, recipes, say)
        for artifact, recipe, plans in zip(target.artifacts, recipes, planned, strict=True):
            artifact = replace(artifact, recipe=recipe.name)
            if any(plan.inputs for plan in plans.values()):
                calibration = original.calibrated.calibration
            for part in original.parts:
                name = part.spec.name
                say(f"writing {artifact.format} {name}, {artifact.recipe}")
                fitted = emit_fitted(part, artifact, plans[name], folder, few, open_batch=target.open_batch)
                graphs.setdefault(artifact.format, {})[name] = fitted.graph
                rungs = judge_rungs(fitted, target, few, folder, say)
                ladder += rungs
                say(f"looking at what the rewrites did to {name}")
                found = find(fitted, trajectories[0], rungs, original.forms[name])
                findings.setdefault(artifact.format, {})[name] = found
        draft = layout.assemble(folder, original.checkpoint, target, graphs, trajectories, calibration)
        seal(folder, draft.model_copy(update={"verdicts": tuple(record_verdict(v) for v in ladder)}))
        bundle = open_unproven(folder)
        verdicts, pictures = judge(bundle, trajectories, lambda part: say(f"verifying {part}"))
        verdicts = pictures_first([*ladder, *verdicts])
        say("writing the report")
        write_report(
            folder, Report(bundle.manifest, verdicts, pictures, trajectories, seconds, own_peak_bytes() / 1e6, findings)
        )
        judged = bundle.manifest.model_copy(update={"verdicts": tuple(record_verdict(v) for v in verdicts)})
        manifest = seal(folder, judged)
        if changed := changed_files(bundle.manifest, manifest):
            raise ProofError(f"{out}: {changed[0]} changed between the proof and the seal: export again")
        failed = [verdict for verdict in verdicts if not verdict.passed]
        if failed:
            kept = keep_failed(folder, out)
            raise ProofError(f"{blame(failed).describe()}; {len(failed)} verdicts failed, the bundle is kept as {kept}")
    return Bundle(out, manifest)


def changed_files(judged: Manifest, sealed: Manifest) -> list[str]:
    """The files that are not what they were when the bundle was judged, but for what tells what the judge found: all
    of role runtime among them, so that equal lists have equal runtime ids."""
    paths = judged.files.keys() | sealed.files.keys()
    entries = {path: (judged.files.get(path), sealed.files.get(path)) for path in sorted(paths)}
    return [
        path
        for path, (before, after) in entries.items()
        if path != PROOF and before != after and "report" not in {entry.role for entry in (before, after) if entry}
    ]


def pictures_first(verdicts: Sequence[ParityReport]) -> list[ParityReport]:
    """The verdicts on whole pictures, drawn free-running beside diffusers' own pipeline, then those on the parts."""
    return sorted(verdicts, key=lambda verdict: verdict.rung != "pictures")


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
