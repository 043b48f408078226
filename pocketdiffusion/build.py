"""Export a checkpoint as a bundle. Read this file first: it has all steps of the product in their order."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pocketdiffusion.choices import check_search, check_tile_size, choose
from pocketdiffusion.export import bundle_writer as layout
from pocketdiffusion.export.checks.ladder import judge_rungs
from pocketdiffusion.export.component import TileSize
from pocketdiffusion.export.findings import Findings, measure_findings
from pocketdiffusion.export.float16.audit import emit_within_float16
from pocketdiffusion.export.original import Original, open_model, record_original
from pocketdiffusion.export.planning import check_recipes, find_recipes, plan_artifacts
from pocketdiffusion.export.targets import BLENDED, Target, load_target
from pocketdiffusion.host_memory import check_host_memory, formats_one_at_a_time
from pocketdiffusion.quantize.recipe import Recipe
from pocketdiffusion.reports.export import Report, write_report
from pocketdiffusion.reports.stage_times import timed
from pocketdiffusion.runtime.bundle.bundle import Bundle
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.bundle.sealing import prepare, seal_judged
from pocketdiffusion.runtime.bundle.staging import check_output_folder, keep_failed, scratch_next_to, stage
from pocketdiffusion.runtime.bundle.verdicts import Kind, ProofKind, Verdict, first_to_report
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.memory import own_peak_bytes
from pocketdiffusion.runtime.progress import Progress
from pocketdiffusion.runtime.verify.gate import judge

ReportKind = Literal["short", "full"]


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
    split_unet: int | None = None,
    vae_tiles: str | None = None,
    vae_tile_size: int | None = None,
    revision: str | None = None,
    token: str | None = None,
    allow_unexpected: Sequence[str] = (),
    proof: ProofKind = "full",
    recordings: Path | None = None,
    max_memory: int | None = None,
    report: ReportKind = "short",
    progress: Progress = lambda line: None,
) -> Bundle:
    """Export `model` (built-in name, diffusers folder or hub id) for the phone `target_name` into the folder `out`.

    `recipe` (a file of quantize/recipes, or a JSON file of one), `format` ("onnx", "coreml", "tflite"), `profile`,
    `split_unet`, the number of graphs that the UNet becomes, and `vae_tiles` override the target's own: "none", "exact"
    for a VAE decoder in stripes of rows, or "blended" for one of tiles of `vae_tile_size` pixels. `sampler` overrides
    the checkpoint's scheduler, `width` and `height` (pixels) the trained size. `allow_unexpected`: shell patterns of
    unused tensors to ignore. `proof` "quick" compares one picture of few steps instead of four of ten. The folder
    `recordings` keeps the original's drawings for the next export of the model. `max_memory`: bytes that the export may
    use, by default the free ones. `report` "full" also measures the error of each single rewrite and activation form.
    The recipe "mixed" is searched, for weights of `budget_mb` (MB of 1e6 bytes) or pictures of `min_psnr` (dB).

    Raise UserError if the input cannot be used, and ProofError if a verdict failed: then the bundle is kept as
    `out`.failed, and `out` is not written.
    """
    progress, seconds = timed(progress)
    target = choose(load_target(target_name), recipe, format, profile, split_unet, vae_tiles)
    check_tile_size(target, vae_tile_size)
    check_search(target, budget_mb, min_psnr)
    check_output_folder(out)
    options: dict[str, Any] = {
        "split_unet": target.split_unet,
        "tiles": TileSize(vae_tile_size) if target.vae_tiles == BLENDED else None,
        "revision": revision,
        "token": token,
        "allow_unexpected": allow_unexpected,
        "progress": progress,
    }
    checkpoint, parts = open_model(model, width=width, height=height, sampler=sampler, **options)
    check_recipes(parts, target.artifacts)
    check_host_memory(parts, target.artifacts, max_memory)
    with scratch_next_to(out):
        original = record_original(checkpoint, parts, progress, proof, recordings)
        recipes = find_recipes(original, target, budget_mb, min_psnr, progress)
        options = {"max_memory": max_memory, "report": report, "progress": progress, "seconds": seconds}
        return export_original(original, target, out, recipes=recipes, **options)


def export_original(
    original: Original,
    target: Target,
    out: Path,
    *,
    recipes: Sequence[Recipe] | None = None,
    max_memory: int | None = None,
    report: ReportKind = "short",
    progress: Progress = lambda line: None,
    seconds: Mapping[str, float] = {},
) -> Bundle:
    """Export a recorded model, as `export` does. `recipes`: one for each artifact of the target, by default the recipes
    that the target names. `seconds`: time by stage, which is read for the report at the end."""
    recipes = find_recipes(original, target, None, None, progress) if recipes is None else recipes
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
                    fitted, rungs, original.few, report, progress
                )
                ladder += rungs
        calibrated = any(plan.inputs for plans in planned for plan in plans.values())
        calibration = original.calibrated.calibration if calibrated else None
        progress("writing tokenizer, tables and vectors")
        draft = layout.assemble(folder, original.checkpoint, target, graphs, trajectories, calibration)
        unsealed = prepare(folder, draft.model_copy(update={"verdicts": tuple(ladder), "proof_kind": original.proof}))
        tight = formats_one_at_a_time(draft.program, draft.graphs, max_memory)
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
