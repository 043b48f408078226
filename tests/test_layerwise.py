"""Artifacts that compute in integers, each layer beside torch: sound ones agree, and faults that the whole graph's
error hides are seen."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.integer_parts import plan_for
from support.recordings import GRAPHS
from test_faults_formats import one_element, part_of
from torch import Tensor, nn

from pocketdiffusion.export.backends import find_backend
from pocketdiffusion.export.backends.emission import emit, emit_floats
from pocketdiffusion.export.backends.intermediate_outputs import open_layers
from pocketdiffusion.export.checks.layerwise import judge_teacher_forced
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.families import components
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.export.quantization import open_quantized
from pocketdiffusion.export.reference.record import REQUESTS, record
from pocketdiffusion.quantize.qparams import ValueRange
from pocketdiffusion.quantize.scheme import Activation, Plan
from pocketdiffusion.runtime.bundle.verdicts import Kind, Verdict
from pocketdiffusion.runtime.engines import load_runner
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.verify.check import NONE, Check, Tolerance
from pocketdiffusion.runtime.verify.gate import judge_graph
from pocketdiffusion.runtime.verify.recording import Trajectory, cases, first_middle_last_steps
from pocketdiffusion.runtime.verify.tolerances import LAYER_DB

pytestmark = pytest.mark.slow  # each test emits a graph, or starts a process

Recipe = tuple[str, str, Activation]
RECIPES: list[Recipe] = [
    ("onnx", "ort", "int8"),
    ("onnx", "std", "dynamic"),
    ("onnx", "std", "int16"),
    ("coreml", "ios18", "int8"),
    ("tflite", "std", "int8"),
    ("tflite", "std", "dynamic"),
]


@pytest.fixture(scope="module")
def drawn(micro_checkpoint: Path) -> list[Trajectory]:
    checkpoint = open_checkpoint(str(micro_checkpoint))
    return [first_middle_last_steps(t) for t in record(checkpoint, components(checkpoint), REQUESTS[1:2])]


LAYERWISE = Check(Kind.SAME_INTEGERS, Tolerance(LAYER_DB))


def with_room(plan: Plan, factor: float = 1.5) -> Plan:
    """What is cut off is not torch's: rounded weights may give more than what was calibrated."""
    inputs, outputs = (
        {name: ValueRange(factor * span.low, factor * span.high) for name, span in spans.items()}
        for spans in (plan.inputs, plan.outputs)
    )
    return replace(plan, inputs=inputs, outputs=outputs)


def judged(
    recipe: Recipe, part: Component, drawn: list[Trajectory], folder: Path, faulty: Component | None = None
) -> tuple[Verdict, float]:
    """What is said of an artifact of `faulty`, by default of `part` itself; and the PSNR (dB) of the whole graph."""
    format, profile, activation = recipe
    calls = [case.inputs for trajectory in drawn for case in cases(part.spec.name, trajectory)]
    plan = with_room(plan_for(part, activation=activation, calls=calls))
    artifact = replace(find_backend(format).default, profile=profile, recipe=plan.recipe)
    graph = emit(faulty or part, artifact, folder, open_batch=False, plan=plan)
    reference = open_quantized(part, (), plan, litert=format == "tflite")
    layers = open_layers(folder, format, graph)
    whole = judge_graph(Check(Kind.COMPARED, NONE), load_runner(folder, format, graph), drawn)
    report = judge_teacher_forced(LAYERWISE, reference, layers, drawn, plan)
    return report, min(each.psnr_db for each in whole)


@pytest.mark.parametrize("graph", ["unet", *(pytest.param(g, marks=pytest.mark.slow) for g in GRAPHS if g != "unet")])
@pytest.mark.parametrize("recipe", RECIPES, ids="-".join)
def test_a_sound_artifact_is_torchs_layer_by_layer(
    recipe: Recipe, graph: str, micro_checkpoint: Path, drawn: list[Trajectory], tmp_path: Path
) -> None:
    report, whole = judged(recipe, part_of(micro_checkpoint, graph), drawn, tmp_path)
    assert report.passed and report.psnr_db >= LAYER_DB + 6, report.describe()
    assert recipe[2] == "int16" or report.psnr_db > whole


def with_fault(part: Component, change: Callable[[Tensor], Tensor], place: str) -> Component:
    """A UNet that changes one of its inputs, or its output."""

    def build() -> nn.Module:
        module = part.build()
        sound = module.forward

        def faulty(sample: Tensor, timestep: Tensor, states: Tensor) -> tuple[Tensor]:
            timestep = change(timestep) if place == "timestep" else timestep
            (out,) = sound(sample, timestep, change(states) if place == "states" else states)
            return (change(out) if place == "out" else out,)

        module.forward = faulty
        return module

    return replace(part, build=build)


FAULTS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "off-by-one timestep": ("timestep", lambda x: x + 1.0),
    "the last token is lost": ("states", lambda x: torch.cat([x[:, :-1], 0.0 * x[:, -1:]], 1)),
    "up to 10 % too much": (
        "out",
        lambda x: x + 0.1 * x * torch.sigmoid(x),
    ),  # a factor would be folded into the weights
    "one outlier": ("out", one_element(lambda x: x + 0.5)),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("format", ["onnx", *(pytest.param(f, marks=pytest.mark.slow) for f in ("coreml", "tflite"))])
def test_a_fault_that_hides_in_the_whole_is_seen(
    format: str, fault: str, micro_checkpoint: Path, drawn: list[Trajectory], tmp_path: Path
) -> None:
    part = part_of(micro_checkpoint, "unet")
    place, change = FAULTS[fault]
    faulty = with_fault(part, change, place)
    for recipe in RECIPES:
        if recipe[0] == format:
            report, _ = judged(recipe, part, drawn, tmp_path / "-".join(recipe), faulty)
            assert not report.passed, (recipe, report.describe())
            assert report.subject.startswith("unet.") and report.rung == "same integers"


def test_a_layer_that_nobody_names_is_refused(micro_checkpoint: Path, drawn: list[Trajectory], tmp_path: Path) -> None:
    part = part_of(micro_checkpoint, "unet")
    plan = plan_for(part, activation="dynamic")
    graph = emit(part, replace(find_backend("onnx").default, recipe=plan.recipe), tmp_path, open_batch=False, plan=plan)
    lacking = graph.model_copy(update={"layers": tuple(layer for layer in graph.layers if "conv_out" not in layer[0])})
    layers, reference = open_layers(tmp_path, "onnx", lacking), open_quantized(part, (), plan)
    with pytest.raises(ProofError, match="names no layer for unet.conv_out.weight"):
        judge_teacher_forced(LAYERWISE, reference, layers, drawn, plan)


@pytest.mark.parametrize("format", ["onnx", "coreml", "tflite"])
def test_opening_layers_writes_nothing_beside_the_artifact(format: str, micro_checkpoint: Path, tmp_path: Path) -> None:
    """Not for a moment: a bundle with a file that its manifest does not name is no bundle."""
    part = part_of(micro_checkpoint, "vae_decoder")
    graph = emit_floats(
        part, replace(find_backend(format).default, recipe="fp16"), tmp_path / "bundle", open_batch=False
    )
    folders = [path for path in (tmp_path, *tmp_path.rglob("*")) if path.is_dir()]
    before = {folder: folder.stat().st_mtime_ns for folder in folders}
    open_layers(tmp_path / "bundle", format, graph)
    assert {folder: folder.stat().st_mtime_ns for folder in folders} == before
