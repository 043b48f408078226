"""The stand-ins: what only breaks on a phone breaks here. Skipped where they are not set up, which CI does."""

import subprocess
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from shutil import copytree

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from support.command import call, refusal
from support.recordings import case, made_up
from support.tflite_files import Value, write_tflite
from support.tflite_plans import SCHEMES, Small, emit_small

from pocketdiffusion.cli.options import STANDINS
from pocketdiffusion.export.backends.tflite.file import read_model, write_model
from pocketdiffusion.runtime.bundle.bundle import open_bundle
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.bundle.sealing import seal
from pocketdiffusion.runtime.bundle.verdicts import Kind
from pocketdiffusion.runtime.devices.judge import Standin, find_place
from pocketdiffusion.runtime.devices.standins.arm64 import CORES
from pocketdiffusion.runtime.engines import onnx as host_onnx
from pocketdiffusion.runtime.engines import tflite as host_tflite
from pocketdiffusion.runtime.engines.facts import StandinRun
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec
from pocketdiffusion.runtime.runner import Runner
from pocketdiffusion.runtime.verify.check import Check, Scope, Tolerance
from pocketdiffusion.runtime.verify.gate import judge_graph
from pocketdiffusion.runtime.verify.metrics import psnr_db
from pocketdiffusion.runtime.verify.recording import Trajectory, recorded_once
from pocketdiffusion.runtime.verify.tolerances import FLOORS_DB, floor_db

pytestmark = pytest.mark.slow
FOLDER = STANDINS.expanduser()
(ONNX,) = host_onnx.ENGINE.standin_runs["arm64"]
TFLITE, TFLITE_HALF = host_tflite.ENGINE.standin_runs["arm64"]
(TFLITE_GPU,) = host_tflite.ENGINE.standin_runs["gpu"]
RNG = np.random.default_rng(0)


def place(device: str, core: str = "cortex-a76", seconds: float = 300) -> Standin:
    """One that was set up is run, and fails if it is broken; one that never was is left out, which CI does not do."""
    if not (FOLDER / device).exists():
        pytest.skip(f"not set up: pocketdiffusion devices install {device}")
    return find_place(device, FOLDER, core, seconds)


def opened(where: Standin, way: StandinRun, path: Path, spec: GraphSpec) -> Runner:
    graph = Graph.model_validate(
        {
            "path": path.name,
            "files": (path.name,),
            "spec": asdict(spec),
            "profile": "std",
            "recipe": "fp32",
            "storage": "float32",
            "arithmetic": "float32",
            "compute_unit": "gpu",
            "rewrites": {},
            "ops": {},
            "parameters": 0,
        }
    )
    return where.open(path.parent, way, graph)


# What overflows in float16.

DECODER = GraphSpec(
    "vae_decoder", (TensorSpec("latent_sample", (1, 64), "float32"),), (TensorSpec("sample", (1, 64), "float32"),)
)


def decoder(folder: Path, factor: float) -> tuple[Path, Trajectory]:
    """sample = latent_sample * factor / factor, as a file, and a record of it."""
    values = [Value(name, (1, 64)) for name in ("latent_sample", "large", "sample")]
    factors = [Value("up", (1,), data=np.array([factor], "f4")), Value("down", (1,), data=np.array([1 / factor], "f4"))]
    operators = [("MUL", "latent_sample up", "large"), ("MUL", "large down", "sample")]
    path = write_tflite(folder / "decoder.tflite", [*values, *factors], operators, "vae_decoder")
    x = RNG.uniform(1, 2, (1, 64)).astype(np.float32)
    return path, made_up({"vae_decoder": [case({"latent_sample": x}, {"sample": x})]})


@pytest.mark.parametrize(("factor", "holds"), [(8.0, True), (1e5, False)])
def test_an_overflow_shows_in_float16_arithmetic_alone(factor: float, holds: bool, tmp_path: Path) -> None:
    where = place("arm64")
    path, trajectory = decoder(tmp_path, factor)

    def passed(runner: Runner, arithmetic: str, device: str) -> bool:
        scope = Scope("tflite", arithmetic=arithmetic, device=device, recipe="fp32")
        (report,) = judge_graph(Check(Kind.ARTIFACT, Tolerance(floor_db(scope)), scope), runner, [trajectory])
        assert report.device == device and report.arithmetic == arithmetic
        return report.passed

    assert passed(host_tflite.open_runner(path, DECODER), "float32", "host")
    assert passed(opened(where, TFLITE, path, DECODER), "float32", "arm64")
    assert passed(opened(where, TFLITE_HALF, path, DECODER), "float16", "arm64") == holds


# What the GPU delegate refuses.


def broadcast(path: Path, spec: GraphSpec) -> None:
    """A file whose only operator is BROADCAST_TO, of a version that LiteRT has."""
    shape = Value("shape", (2,), "INT32", data=np.array([8, 4], "i4"))
    write_tflite(path, [Value("x"), shape, Value("y", (8, 4))], [("BROADCAST_TO", "x shape", "y")], spec.name)
    model = read_model(path)
    model.operatorCodes[0].version = 2
    write_model(model, path)


def test_verify_on_gpu_names_what_the_delegate_refuses(tiny_bundle: Path, tmp_path: Path) -> None:
    place("gpu")
    folder = copytree(tiny_bundle, tmp_path / "bundle")
    manifest = open_bundle(folder).manifest
    (folder / "tflite").mkdir()
    graphs = {}
    for name, graph in manifest.graphs["onnx"].items():
        path = f"tflite/{name}.tflite"
        broadcast(folder / path, graph.spec)
        changes = {"path": path, "files": (path,), "external_data": (), "compute_unit": "gpu"}
        graphs[name] = graph.model_copy(update=changes)
    verdicts = [replace(v, format="tflite") if v.format else v for v in manifest.verdicts]
    seal(folder, manifest.model_copy(update={"graphs": {"tflite": graphs}, "verdicts": tuple(verdicts)}))
    done = call("verify", folder, "--device", "gpu")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "the GPU delegate refuses BROADCAST_TO" in done.stderr and "passed" not in done.stdout


def test_what_the_delegate_takes_is_whole_and_right(tmp_path: Path) -> None:
    path, trajectory = decoder(tmp_path, 1e5)
    runner = opened(place("gpu"), TFLITE_GPU, path, DECODER)
    scope = Scope("tflite", device="gpu", unit="gpu", recipe="fp32")
    (report,) = judge_graph(Check(Kind.ARTIFACT, Tolerance(floor_db(scope)), scope), runner, [trajectory])
    assert report.passed and report.psnr_db > 120


# int8: onnxruntime's kernels for dot product.


def test_a_dynamic_int8_graph_gives_on_arm64_what_it_gives_here(tmp_path: Path) -> None:
    spec = GraphSpec("part", (TensorSpec("x", (16, 96), "float32"),), (TensorSpec("y", (16, 64), "float32"),))
    weights = [RNG.standard_normal(shape).astype("f4") / 8 for shape in ((96, 128), (128, 64))]
    nodes = [helper.make_node("MatMul", ["x", "w0"], ["h"]), helper.make_node("Relu", ["h"], ["r"])]
    nodes.append(helper.make_node("MatMul", ["r", "w1"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "part",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (16, 96))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (16, 64))],
        [numpy_helper.from_array(weight, f"w{n}") for n, weight in enumerate(weights)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, tmp_path / "float.onnx")
    quantize_dynamic(tmp_path / "float.onnx", tmp_path / "part.onnx", per_channel=True, weight_type=QuantType.QInt8)
    assert any(node.op_type == "MatMulInteger" for node in onnx.load(tmp_path / "part.onnx").graph.node)
    x = RNG.standard_normal((16, 96)).astype(np.float32)
    here = host_onnx.open_runner(tmp_path / "part.onnx", spec)({"x": x})["y"]
    there = opened(place("arm64"), ONNX, tmp_path / "part.onnx", spec)({"x": x})["y"]
    exact = (np.maximum(x @ weights[0], 0) @ weights[1]).astype(np.float32)
    peak = float(np.abs(exact).max())
    assert 30 < psnr_db(exact, here, peak) < 60  # it is int8 that is compared
    assert psnr_db(here, there, peak) > FLOORS_DB["float32", "float32"]


# int8: XNNPACK's kernels, on the small part of tests/support/tflite_plans.py.


@pytest.mark.parametrize(("scheme", "floor"), [("w8", 105), ("dynamic8", 45), ("w8a8", 105)])
def test_a_tflite_graph_in_int8_gives_on_arm64_what_it_gives_here(scheme: str, floor: float, tmp_path: Path) -> None:
    """What is rounded by its own range at each call is at times rounded the other way."""
    made = emit_small(tmp_path, Small, SCHEMES[scheme])
    runner = opened(place("arm64"), TFLITE, made.path, made.part.spec)
    found, wanted = runner(made.inputs)["y"], made.run()["y"]
    assert psnr_db(wanted, found, float(np.abs(wanted).max())) >= floor


@pytest.mark.parametrize(("scheme", "said"), [("w8", "refuses DEQUANTIZE"), ("w8a8", "refuses this graph")])
def test_the_gpu_delegate_refuses_int8(scheme: str, said: str, tmp_path: Path) -> None:
    made = emit_small(tmp_path, Small, SCHEMES[scheme])
    assert made.graph.compute_unit == "cpu"
    with pytest.raises(ProofError, match=f"the GPU delegate {said}"):
        opened(place("gpu"), TFLITE_GPU, made.path, made.part.spec)


# Ends that are bad.


def test_the_cores_that_targets_may_name_are_the_emulator_s() -> None:
    emulator = Path(place("arm64").launch.command[0])
    listed = subprocess.run([emulator, "-cpu", "help"], capture_output=True, text=True).stdout
    assert tuple(listed.partition(":")[2].split()) == CORES


def test_verify_on_arm64_of_both_arithmetics_says_so(tiny_bundle: Path) -> None:
    place("arm64")
    done = call("verify", tiny_bundle, "--device", "arm64")
    assert done.returncode == 0, done.stderr
    assert "arm64" in done.stdout and "on arm64" in done.stdout.splitlines()[-1]
    assert "onnxruntime computes as the file says" in done.stdout


@pytest.mark.parametrize(
    ("core", "said"),
    [
        ("cortex-a53", "arm64: the emulated processor cortex-a53 lacks asimdhp, asimddp"),
        ("cortex-a78", "arm64: the emulator has no core cortex-a78: did you mean cortex-a76 or cortex-a72?"),
        ("oryon", "arm64: the emulator has no core oryon: choose one of a64fx, cortex-a35, "),
    ],
)
def test_a_core_that_will_not_do(core: str, said: str, tiny_bundle: Path) -> None:
    place("arm64")
    assert refusal("verify", tiny_bundle, "--device", "arm64", "--core", core).startswith(said)


def test_a_limit_that_is_exceeded(tmp_path: Path) -> None:
    path, _ = decoder(tmp_path, 8)
    with pytest.raises(ProofError) as caught:
        opened(place("arm64", seconds=0.05), TFLITE, path, DECODER)
    assert "vae_decoder took longer than 0.05 s" in str(caught.value) and "\n" not in str(caught.value)


def test_an_emulator_that_is_killed(tmp_path: Path) -> None:
    path, trajectory = decoder(tmp_path, 8)
    runner = opened(place("arm64"), TFLITE, path, DECODER)
    kill: Callable[[], None] = runner._process.kill  # type: ignore[attr-defined]
    kill()
    x = recorded_once(trajectory, "decoder_latents")
    with pytest.raises(ProofError, match=r"vae_decoder crashed \(SIGKILL\)"):
        runner({"latent_sample": x})


def test_a_file_of_the_stand_in_that_is_gone(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = place("gpu").launch.environment["LD_LIBRARY_PATH"]
    copytree(folder, tmp_path / "gpu")
    (tmp_path / "gpu/libvk_swiftshader.so").unlink()
    done = call("verify", tiny_bundle, "--device", "gpu", "--standins", tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "libvk_swiftshader.so is missing or has a wrong size" in done.stderr
