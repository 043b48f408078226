"""Measure every recipe with every backend that supports it, on the built-in model: size, PSNR, SSIM, time. Others get
the reason.

    python benchmarks/recipes.py [--format FORMAT] [--only RECIPE] [-o FILE.json]      measures, row by row
    python benchmarks/recipes.py --prompts search -o build/search.json                the same on the search prompts
    python benchmarks/recipe_tables.py, floors.py     then write docs/recipes.md and the floors, from the measurements

Graphs are judged teacher-forced on the first, middle and last call of the 24 test prompts, and pictures drawn by the
artifacts (free-running); both are compared with the original in float32. The UNet's time is measured on one thread,
relative to the format's fp32 artifact, called in turn. Core ML has none, because times of our executor do not predict a
phone's. Rows that are in the file already are kept: remove it to measure all of them again.
"""

import json
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer
from recipe_tables import EQUAL_DB
from sigmoid import interleave

from pocketdiffusion.cli.console import print_line, run
from pocketdiffusion.export import bundle_writer as layout
from pocketdiffusion.export.backends.emission import emit, emit_floats
from pocketdiffusion.export.families import components
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.export.original import Original
from pocketdiffusion.export.planning import plan_artifacts
from pocketdiffusion.export.prompts import requests
from pocketdiffusion.export.reference.record import record
from pocketdiffusion.export.targets import Artifact, load_target
from pocketdiffusion.quantize.recipes import load_recipe, recipe_names
from pocketdiffusion.runtime.bundle.bundle import Bundle, open_unproven
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.bundle.sealing import seal
from pocketdiffusion.runtime.bundle.verdicts import Kind
from pocketdiffusion.runtime.engines import onnx, open_graph, tflite
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.verify.check import NONE, Check
from pocketdiffusion.runtime.verify.gate import judge_graph
from pocketdiffusion.runtime.verify.pictures import draw_pictures
from pocketdiffusion.runtime.verify.recording import Trajectory, cases, first_middle_last_steps

HERE = Path(__file__).parent
TARGETS = {"onnx": "pixel-8", "coreml": "iphone-16", "tflite": "galaxy-s24"}
ROUNDS = 11
_OPEN = {"onnx": onnx.open_runner, "tflite": tflite.open_runner}


def main(
    format: Annotated[str | None, typer.Option(help="onnx, coreml or tflite. Default: all.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Names or JSON files of recipes. Default: all.")] = None,
    prompts: Annotated[str, typer.Option(help="Prompts: test, on which floors are measured, or search.")] = "test",
    output: Annotated[Path, typer.Option("-o", help="JSON file for the figures.")] = HERE / "recipes.json",
) -> None:
    torch.set_num_threads(1)
    (HERE.parent / "build").mkdir(exist_ok=True)
    rows: list[dict[str, Any]] = json.loads(output.read_text()) if output.exists() else []
    checkpoint = open_checkpoint("emoji")
    original = Original(checkpoint, components(checkpoint), [])
    trajectories = record(
        checkpoint, original.parts, requests(prompts), progress=lambda part: print_line(f"recording {part}")
    )
    for name in [format] if format else TARGETS:
        artifact = replace(load_target(TARGETS[name]).artifacts[0], format=name)
        for recipe in only or recipe_names():
            if any((row["format"], row["recipe"]) == (name, Path(recipe).stem) for row in rows):
                continue
            print_line(f"{name} {recipe}")
            rows.append(measure(original, replace(artifact, recipe=recipe), trajectories))
            output.write_text(json.dumps(rows, indent=1) + "\n")


def measure(original: Original, artifact: Artifact, trajectories: list[Trajectory]) -> dict[str, Any]:
    """Return one row. If the format does not support the recipe, it has the reason and the nearest recipe."""
    recipe = load_recipe(artifact.recipe)
    row: dict[str, Any] = {"format": artifact.format, "profile": artifact.profile, "recipe": Path(artifact.recipe).stem}
    if artifact.format == "onnx" and recipe.name == "w8a16":  # graphs for QNN consist of standard operators
        artifact = replace(artifact, profile="std")
        row["profile"] = "std"
    try:
        (plans,) = plan_artifacts(original, [artifact], [recipe], lambda line: None)
    except UserError as error:
        return row | {"refused": str(error).partition(": ")[2]}
    with TemporaryDirectory(dir=HERE.parent / "build") as scratch:
        folder = Path(scratch) / "bundle"
        folder.mkdir()
        graphs: dict[str, Graph] = {}
        for part in original.parts:
            plan = plans[part.spec.name]
            graphs[part.spec.name] = emit(part, artifact, folder, open_batch=False, plan=plan)
        target = replace(load_target("generic"), artifacts=(artifact,))
        draft = layout.assemble(folder, original.checkpoint, target, {artifact.format: graphs}, trajectories[:1])
        seal(folder, draft)
        bundle = open_unproven(folder, check=False)
        row |= describe(bundle, artifact.format)
        for name in graphs:
            runner = open_graph(bundle, name, artifact.format)
            reports = judge_graph(
                Check(Kind.COMPARED, NONE), runner, [first_middle_last_steps(t) for t in trajectories]
            )
            row["graph_db"][name] = {"minimum": min(EQUAL_DB, *(r.psnr_db for r in reports))}
            row["graph_db"][name]["median"] = min(EQUAL_DB, *(median(r.case_db) for r in reports))
        pictures = list(draw_pictures(bundle, trajectories, artifact.format))
        for what in ("psnr_db", "ssim"):
            values = [min(EQUAL_DB, getattr(picture, what)) for picture in pictures]
            row[what] = {"median": median(values), "minimum": min(values)}
        if artifact.format in _OPEN:
            row["time"] = time_beside_fp32(original, artifact, bundle, trajectories[0], Path(scratch))
    return row


def describe(bundle: Bundle, format: str) -> dict[str, Any]:
    """Return sizes in MB (1e6 bytes), and precisions."""
    graphs, files = bundle.manifest.graphs[format], bundle.manifest.files
    return {
        "mb": {name: sum(files[file].size for file in graph.files) / 1e6 for name, graph in graphs.items()},
        "storage": graphs["unet"].storage,
        "arithmetic": graphs["unet"].arithmetic,
        "io": sorted({tensor.dtype for tensor in (*graphs["unet"].spec.inputs, *graphs["unet"].spec.outputs)}),
        "graph_db": {},
    }


def time_beside_fp32(
    original: Original, artifact: Artifact, bundle: Bundle, trajectory: Trajectory, scratch: Path
) -> float:
    """Return the processor time of a UNet call relative to the format's fp32 artifact, on one thread: the median of
    the ratios of calls in turn."""
    (unet,) = [part for part in original.parts if part.spec.name == "unet"]
    (scratch / "fp32").mkdir()
    reference = emit_floats(unet, replace(artifact, recipe="fp32"), scratch / "fp32", open_batch=False)
    graph = bundle.manifest.graphs[artifact.format]["unet"]
    open_runner = _OPEN[artifact.format]
    runners = {
        "fp32": open_runner(scratch / "fp32" / reference.path, reference.spec, threads=1),
        "own": open_runner(bundle.folder / graph.path, graph.spec, threads=1),
    }
    times = interleave(runners, next(cases("unet", trajectory)).inputs, ROUNDS)
    return median(own / fp32 for own, fp32 in zip(times["own"], times["fp32"], strict=True))


if __name__ == "__main__":
    run(lambda: typer.run(main))
