"""Models whose results are beyond float16: an export that does not look gives a black picture; the audit finds the
operator, the mend brings the picture back, in every format."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from pocketdiffusion.export.backends import find_backend
from pocketdiffusion.export.backends.emission import emit_floats
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.families import components
from pocketdiffusion.export.float16.audit import EmittedGraph, emit_within_float16, measure_ranges, replay
from pocketdiffusion.export.matrices import float_plan
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.export.reference.record import REQUESTS, record
from pocketdiffusion.export.targets import Artifact
from pocketdiffusion.quantize.float16_range import HALF_MAX
from pocketdiffusion.quantize.scheme import FLOAT32, Plan
from pocketdiffusion.runtime.engines import load_runner
from pocketdiffusion.runtime.image import to_uint8
from pocketdiffusion.runtime.verify.check import scope_of
from pocketdiffusion.runtime.verify.gate import judge_graph
from pocketdiffusion.runtime.verify.metrics import image_psnr_db
from pocketdiffusion.runtime.verify.recording import Trajectory, first_middle_last_steps, recorded_once
from pocketdiffusion.runtime.verify.tolerances import check_artifact

pytestmark = pytest.mark.slow  # each test emits a graph, or starts a process

FORMATS = ("onnx", "coreml", "tflite")
VAE, TEXT = "vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"


def scaled(checkpoint: Path, folder: Path, file: str, factors: Mapping[str, float]) -> Path:
    """A copy of `checkpoint` in which the weights whose names end with a key are multiplied by its value."""
    shutil.copytree(checkpoint, folder)
    weights = safetensors.numpy.load_file(folder / file)
    changed = {name: w * np.float32(f) for name, w in weights.items() for end, f in factors.items() if end in name}
    assert changed
    safetensors.numpy.save_file({**weights, **changed}, folder / file)
    return folder


@pytest.fixture(scope="module")
def loud(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The decoder's stream of residuals is 2^15 times as large, which its norms take out again."""
    ends = ("decoder.conv_in.", ".conv2.", ".conv_shortcut.bias", ".to_out.0.", ".upsamplers.0.conv.bias")
    return scaled(tiny_checkpoint, tmp_path_factory.mktemp("loud") / "loud", VAE, dict.fromkeys(ends, 2.0**15))


@pytest.fixture(scope="module")
def bent(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What QuickGELU is given in the first layer of the text encoder is beyond float16: no power of two can help."""
    factors = {"layers.0.mlp.fc1.": 2.0**16, "layers.0.mlp.fc2.weight": 2.0**-16}
    return scaled(tiny_checkpoint, tmp_path_factory.mktemp("bent") / "bent", TEXT, factors)


def part_and_cases(checkpoint: Path, name: str) -> tuple[Component, list[Trajectory]]:
    opened = open_checkpoint(str(checkpoint))
    parts = components(opened)
    return next(p for p in parts if p.spec.name == name), [
        first_middle_last_steps(t) for t in record(opened, parts, REQUESTS[1:2])
    ]


@pytest.fixture(scope="module")
def loud_decoder(loud: Path) -> tuple[Component, list[Trajectory]]:
    return part_and_cases(loud, "vae_decoder")


@pytest.fixture(scope="module")
def bent_encoder(bent: Path) -> tuple[Component, list[Trajectory]]:
    return part_and_cases(bent, "text_encoder")


def artifact(format: str) -> Artifact:
    return replace(find_backend(format).default, recipe="fp16", compute_unit="gpu")


def fit(case: tuple[Component, list[Trajectory]], format: str, folder: Path) -> EmittedGraph:
    part, originals = case
    return emit_within_float16(part, artifact(format), float_plan(part, "fp16"), folder, originals, open_batch=False)


def half_picture(fitted: EmittedGraph, folder: Path, originals: list[Trajectory]) -> np.ndarray:
    """What a phone shows that computes in float16."""
    from pocketdiffusion.export.backends.fp16_emulation import open_replay

    runner = open_replay(folder, fitted.artifact.format, fitted.graph, "float16", lambda *_: None)
    return to_uint8(runner({"latent_sample": recorded_once(originals[0], "decoder_latents")})["sample"])


@pytest.mark.parametrize("format", FORMATS)
def test_without_a_look_the_picture_is_black(
    loud_decoder: tuple[Component, list[Trajectory]], format: str, tmp_path: Path
) -> None:
    part, originals = loud_decoder
    graph = emit_floats(part, artifact(format), tmp_path, open_batch=False)
    plan = float_plan(part, "fp16")
    naive = EmittedGraph(graph, part, part, artifact(format), plan, None)
    reports, ranges = replay(tmp_path, graph, format, plan, originals)
    assert not reports[0].passed and not reports[0].finite
    assert not np.isfinite(ranges[0].largest)
    assert image_psnr_db(originals[0].picture, half_picture(naive, tmp_path, originals)) < 15
    assert half_picture(naive, tmp_path, originals).max() == 0


@pytest.mark.parametrize("format", FORMATS)
def test_the_audit_finds_the_operator_and_the_mend_brings_the_picture_back(
    loud_decoder: tuple[Component, list[Trajectory]], format: str, tmp_path: Path
) -> None:
    _, originals = loud_decoder
    fitted = fit(loud_decoder, format, tmp_path)
    assert fitted.audit is not None
    (mend,) = fitted.audit.corrections
    assert "powers of two" in mend and "comes to" in mend
    assert all(r.fits for r in fitted.audit.ranges) and len(fitted.audit.ranges) > 50
    assert all(report.passed for report in fitted.audit.replayed)
    assert image_psnr_db(originals[0].picture, half_picture(fitted, tmp_path, originals)) > 35
    check = check_artifact(scope_of(format, fitted.graph), fitted.graph)
    again = judge_graph(check, load_runner(tmp_path, format, fitted.graph), originals)
    assert all(report.passed for report in again), [report.describe() for report in again]


def test_ranges_go_on_where_float16_ends(loud_decoder: tuple[Component, list[Trajectory]], tmp_path: Path) -> None:
    part, originals = loud_decoder
    graph = emit_floats(part, artifact("coreml"), tmp_path, open_batch=False)
    first = measure_ranges(tmp_path, "coreml", graph, originals)[0]
    assert first.operator == "square" and HALF_MAX < first.largest < np.inf and not first.fits


def test_core_ml_gets_islands_where_no_power_of_two_helps(
    bent_encoder: tuple[Component, list[Trajectory]], tmp_path: Path
) -> None:
    fitted = fit(bent_encoder, "coreml", tmp_path)
    assert fitted.audit is not None and 1 <= len(fitted.artifact.islands) < 10
    (mend,) = fitted.audit.corrections
    assert f"{len(fitted.artifact.islands)} operators stay float32" in mend
    assert all(r.fits for r in fitted.audit.ranges)
    assert all(report.passed for report in fitted.audit.replayed), [r.describe() for r in fitted.audit.replayed]


def test_other_formats_fail_where_no_power_of_two_helps(
    bent_encoder: tuple[Component, list[Trajectory]], tmp_path: Path
) -> None:
    fitted = fit(bent_encoder, "onnx", tmp_path)
    assert (
        fitted.verdicts and not fitted.verdicts[0].passed and "(replay) is not finite" in fitted.verdicts[0].describe()
    )
    on_cpu = replace(fitted, graph=fitted.graph.model_copy(update={"compute_unit": "cpu"}))
    assert on_cpu.verdicts == ()  # onnxruntime computes in float32 there


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_float16_is_looked_at_where_some_matrices_are_float32(
    tiny_checkpoint: Path, format: str, tmp_path: Path
) -> None:
    part, originals = part_and_cases(tiny_checkpoint, "vae_decoder")
    half = float_plan(part, "fp16").schemes
    some = Plan("mine", {**half, "decoder.conv_in.weight": FLOAT32}, floor_db=50.0, picture_floors_db=(30.0, 25.0))
    assert some.schemes.keys() == half.keys()
    fitted = emit_within_float16(part, artifact(format), some, tmp_path, originals, open_batch=False)
    assert fitted.graph.storage == "float16" and fitted.graph.stored["float32"] == 1
    assert fitted.audit is not None and fitted.verdicts and all(report.passed for report in fitted.verdicts)


def test_a_sound_model_is_left_alone(tiny_checkpoint: Path, tmp_path: Path) -> None:
    case = part_and_cases(tiny_checkpoint, "vae_decoder")
    fitted = fit(case, "onnx", tmp_path)
    assert fitted.part is case[0] and fitted.audit is not None and fitted.audit.corrections == ()
    single = replace(artifact("onnx"), recipe="fp32")
    whole = emit_within_float16(
        case[0], single, float_plan(case[0], "fp32"), tmp_path / "fp32", case[1], open_batch=False
    )
    assert whole.audit is None and whole.verdicts == ()
