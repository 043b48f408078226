"""Export a checkpoint as a bundle. Read this file first: it has all steps of the product in their order."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pocketdiffusion.choices import DEFAULTS, ExportOptions, check_export
from pocketdiffusion.chosen_model import open_chosen
from pocketdiffusion.export import bundle_writer as layout
from pocketdiffusion.export.checks.ladder import judge_rungs
from pocketdiffusion.export.findings import Findings, measure_findings
from pocketdiffusion.export.float16.audit import emit_within_float16
from pocketdiffusion.export.original import Original, record_original
from pocketdiffusion.export.planning import check_recipes, find_recipes, plan_artifacts
from pocketdiffusion.export.targets import Target
from pocketdiffusion.host_memory import check_host_memory, formats_one_at_a_time
from pocketdiffusion.reports.export import Report, write_report
from pocketdiffusion.reports.stage_times import timed
from pocketdiffusion.runtime.bundle.bundle import Bundle
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.bundle.sealing import prepare, seal_judged
from pocketdiffusion.runtime.bundle.staging import check_output_folder, keep_failed, scratch_next_to, stage
from pocketdiffusion.runtime.bundle.verdicts import Kind, Verdict, first_to_report
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.memory import own_peak_bytes
from pocketdiffusion.runtime.progress import Progress
from pocketdiffusion.runtime.verify.gate import judge


def export(
    model: str,
    target_name: str,
    out: Path,
    options: ExportOptions = DEFAULTS,
    progress: Progress = lambda line: None,
) -> Bundle:
    """Export `model` (built-in name, diffusers folder or hub id) for the phone `target_name` into the folder `out`.

    Raise UserError if the input cannot be used, and ProofError if a verdict failed: then the bundle is kept as
    `out`.failed, and `out` is not written.
    """
    progress, seconds = timed(progress)
    target = check_export(model, target_name, options)
    check_output_folder(out)
    checkpoint, parts = open_chosen(model, target, options, progress)
    check_recipes(parts, target.artifacts)
    check_host_memory(parts, target.artifacts, options.max_memory)
    with scratch_next_to(out):
        original = record_original(checkpoint, parts, progress, options.proof, options.recordings)
        return export_original(original, target, out, options, progress, seconds)


def export_original(
    original: Original,
    target: Target,
    out: Path,
    options: ExportOptions = DEFAULTS,
    progress: Progress = lambda line: None,
    seconds: Mapping[str, float] = {},
) -> Bundle:
    """Export a recorded model, as `export` does. `seconds`: time by stage, which is read for the report at the end."""
    recipes = find_recipes(original, target, options.budget_mb, options.min_psnr, progress)
    trajectories = original.trajectories
    graphs: dict[str, dict[str, Graph]] = {}
    findings: dict[str, dict[str, Findings]] = {}
    ladder: list[Verdict] = []
    with stage(out) as folder:
        planned = plan_artifacts(original, target.artifacts, recipes, progress)
        for artifact, recipe, plans in zip(target.artifacts, recipes, planned, strict=True):
            artifact = replace(artifact, recipe=recipe.name)
            for part in original.parts:
                name = part.spec.name
                progress(f"writing {artifact.format} {name}, {artifact.recipe}")
                fitted = emit_within_float16(
                    part, artifact, plans[name], folder, original.few, open_batch=target.open_batch
                )
                rungs = judge_rungs(fitted, target, original, folder, progress)
                graphs.setdefault(artifact.format, {})[name] = fitted.graph
                findings.setdefault(artifact.format, {})[name] = measure_findings(
                    fitted, rungs, original.few, options.report, progress
                )
                ladder += rungs
        calibrated = any(plan.inputs for plans in planned for plan in plans.values())
        calibration = original.calibrated().calibration if calibrated else None
        progress("writing tokenizer, tables and vectors")
        draft = layout.assemble(folder, original.checkpoint, target, graphs, trajectories, calibration)
        unsealed = prepare(folder, draft.model_copy(update={"verdicts": tuple(ladder), "proof_kind": original.proof}))
        tight = formats_one_at_a_time(draft.program, draft.graphs, options.max_memory)
        show = lambda part: progress(f"verifying {part}")  # noqa: E731
        judged, pictures = judge(unsealed.bundle, trajectories, show, tight=tight)
        verdicts = sorted([*ladder, *judged], key=lambda verdict: verdict.kind != Kind.PICTURES)  # pictures first
        progress("writing the report")
        manifest, peak_mb = unsealed.bundle.manifest, own_peak_bytes() / 1e6
        write_report(folder, Report(manifest, verdicts, pictures, trajectories, seconds, peak_mb, findings))
        manifest = seal_judged(unsealed, verdicts)
        failed = [verdict for verdict in verdicts if not verdict.passed]
        if failed:
            kept = keep_failed(folder, out)
            advice = "see its report/report.html, or try a more precise --recipe"
            said = f"{first_to_report(failed).describe()}; {len(failed)} checks failed"
            raise ProofError(f"{said}. The failed bundle is {kept}: {advice}")
    return Bundle(out, manifest)
