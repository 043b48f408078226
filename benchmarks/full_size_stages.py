"""Run one stage of full_size_unet.py, and print its result as one line of JSON.

python benchmarks/full_size_stages.py record FOLDER             the original draws; its first sampler step is stored
python benchmarks/full_size_stages.py convert FOLDER FORMAT     writes the artifact below FOLDER/FORMAT
python benchmarks/full_size_stages.py round FOLDER FORMAT       runs this step in torch, with weights rounded to float16
python benchmarks/full_size_stages.py load FOLDER FORMAT        opens the artifact
python benchmarks/full_size_stages.py step FOLDER FORMAT        opens it, runs this step and judges it
"""

import json
import pickle
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pocketdiffusion.cli.console import run
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.bundle.verdicts import Kind, Verdict, record_verdict
from pocketdiffusion.runtime.engines import load_runner
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.runner import Array, Runner
from pocketdiffusion.runtime.verify.check import Check, Scope, Tolerance, scope_of
from pocketdiffusion.runtime.verify.gate import judge_graph
from pocketdiffusion.runtime.verify.metrics import Comparison, measure
from pocketdiffusion.runtime.verify.recording import Trajectory, cases, keep_steps, recorded
from pocketdiffusion.runtime.verify.tolerances import FLOORS_DB, Measured, check_in_torch, floor_db

TARGETS = {"onnx": "pixel-8", "coreml": "iphone-15", "tflite": "galaxy-s24"}
OUTPUT = "out_sample"


@dataclass(frozen=True)
class Remembering:
    """A runner that records its outputs."""

    runner: Runner
    given: list[Array] = field(default_factory=list)

    @property
    def spec(self) -> GraphSpec:
        return self.runner.spec

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        outputs = self.runner(inputs)
        self.given.append(outputs[OUTPUT])
        return outputs


def record(folder: Path) -> dict[str, Any]:
    from pocketdiffusion.export.reference import record as reference

    checkpoint, parts = _open(folder)
    request = reference.Request("red apple", seed=1, steps=2)
    (trajectory,) = reference.record(checkpoint, parts, [request])
    (folder / "original.pickle").write_bytes(pickle.dumps(keep_steps(trajectory, {0})))
    return {"timestep": float(recorded(trajectory, "timestep")[0][0])}


def original(folder: Path) -> Trajectory:
    """Return the trajectory that `record` stored: one call for each half of guidance."""
    trajectory: Trajectory = pickle.loads((folder / "original.pickle").read_bytes())
    return trajectory


def convert(folder: Path, format: str) -> dict[str, Any]:
    from pocketdiffusion.export.backends.emission import emit_floats

    part, artifact = _part_and_artifact(folder, format)
    graph = emit_floats(part, artifact, folder / format, open_batch=False)
    (folder / f"{format}.json").write_text(graph.model_dump_json())
    size = sum((folder / format / file).stat().st_size for file in graph.files)
    return {
        "mb": size / 1e6,
        "profile": graph.profile,
        "rewrites": graph.rewrites,
        "operators": sum(graph.ops.values()),
    }


def round_weights(folder: Path, format: str) -> dict[str, Any]:
    from pocketdiffusion.export.reference.torch_runner import open_rounded

    part, artifact = _part_and_artifact(folder, format)
    runner = Remembering(open_rounded(part, artifact.rewrites))
    reports = judge_graph(check_in_torch(Kind.ROUNDING, None, "float16"), runner, [original(folder)])
    np.savez(folder / f"{format}-rounded.npz", np.stack(runner.given))
    return {"rounding_db": {report.subject: report.psnr_db for report in reports}, "verdicts": _verdicts(reports)}


def load(folder: Path, format: str) -> dict[str, Any]:
    graph = Graph.model_validate_json((folder / f"{format}.json").read_bytes())
    return {"opened": load_runner(folder / format, format, graph).spec.name}


def step(folder: Path, format: str, rounding_db: Mapping[str, float]) -> dict[str, Any]:
    graph = Graph.model_validate_json((folder / f"{format}.json").read_bytes())
    runner, trajectory = Remembering(load_runner(folder / format, format, graph)), original(folder)
    start, begun = time.perf_counter(), time.process_time()
    scope = scope_of(format, graph)
    floors = {subject: floor_db(scope, Measured(rounding_db=db)) for subject, db in rounding_db.items()}
    reports = judge_graph(Check(Kind.ARTIFACT, Tolerance(floor_db(scope), floors), scope), runner, [trajectory])
    took = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - begun}
    if graph.arithmetic == "float32":
        with np.load(folder / f"{format}-rounded.npz") as rounded:
            references = rounded["arr_0"]
        labels = [case.label for case in cases(graph.spec.name, trajectory)]
        reports.append(
            measure(
                f"{graph.spec.name}.{OUTPUT}",
                [Comparison(*each) for each in zip(labels, references, runner.given, strict=True)],
                Check(Kind.SAME_WEIGHTS, Tolerance(FLOORS_DB["float32", "float32"]), Scope(format)),
            )
        )
    return {**took, "verdicts": _verdicts(reports)}


def _open(folder: Path) -> Any:
    from pocketdiffusion.export.families import components
    from pocketdiffusion.export.opening import open_checkpoint

    checkpoint = open_checkpoint(str(folder / "sd15"), progress=lambda line: None)
    return checkpoint, components(checkpoint)


def _part_and_artifact(folder: Path, format: str) -> Any:
    from pocketdiffusion.export.targets import load_target

    (part,) = (part for part in _open(folder)[1] if part.spec.name == "unet")
    (artifact,) = load_target(TARGETS[format]).artifacts
    return part, replace(artifact, recipe="fp16")


def _verdicts(reports: list[Verdict]) -> list[dict[str, Any]]:
    return [record_verdict(report).model_dump(mode="json") for report in reports]


STAGES: dict[str, Callable[..., dict[str, Any]]] = {
    "record": record,
    "convert": convert,
    "round": round_weights,
    "load": load,
    "step": step,
}


def main() -> None:
    stage, folder, *rest = sys.argv[1:]
    given = [*rest[:1], *map(json.loads, rest[1:])]
    print(json.dumps(STAGES[stage](Path(folder), *given)))


if __name__ == "__main__":
    run(main)
