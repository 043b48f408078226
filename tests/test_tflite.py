"""The TFLite backend on `tiny_checkpoint`: each graph is converted once, in both precisions, for all tests."""

from dataclasses import replace
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tensorflow_lite import install, is_for_it, open_there, version  # noqa: F401  # a fixture
from support.traced_parts import SD15_SITES, component_of, narrow_sd15_unet, psnr

from pocketdiffusion.export.backends.tflite import BACKEND
from pocketdiffusion.export.backends.tflite.emit import emit
from pocketdiffusion.export.backends.tflite.file import (
    ALIGNMENT,
    TYPES,
    WEIGHT_OPERAND,
    data_of,
    is_constant,
    operator_name,
    read_model,
)
from pocketdiffusion.export.checkpoints.tensor import Reshaped, Rows
from pocketdiffusion.export.checks.ladder import judge_rungs
from pocketdiffusion.export.component import Component, load_module
from pocketdiffusion.export.families import components
from pocketdiffusion.export.float16.audit import emit_within_float16
from pocketdiffusion.export.matrices import float_plan
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.export.original import Original
from pocketdiffusion.export.reference.record import Request, record
from pocketdiffusion.export.targets import Artifact, load_target
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.bundle.verdicts import Kind
from pocketdiffusion.runtime.engines.tflite import open_runner
from pocketdiffusion.runtime.errors import ProofError

pytestmark = pytest.mark.slow  # each test emits a graph, or starts a process

ROOT = Path(__file__).parents[1]
NAMES = ("text_encoder", "unet", "vae_decoder", "vae_encoder")
FLOORS = {"fp32": 105, "fp16": 65}
REWRITES = ("chunked_attention", "centred_group_norm", "centred_layer_norm", "quick_gelu", "split_timesteps")


@cache
def parts(folder: Path) -> dict[str, Component]:
    return {part.spec.name: part for part in components(open_checkpoint(str(folder), progress=lambda line: None))}


def artifact(recipe: str = "fp16", rewrites: tuple[str, ...] = REWRITES) -> Artifact:
    return Artifact("tflite", "std", recipe, "gpu", rewrites)


@pytest.fixture(scope="module")
def emitted(
    tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], tuple[Path, Graph]]:
    """By recipe and name: the folder and the graph."""
    made = {}
    for recipe in FLOORS:
        folder = tmp_path_factory.mktemp(recipe)
        for name in NAMES:
            graph = emit(parts(tiny_checkpoint)[name], artifact(recipe), folder, open_batch=False)
            made[recipe, name] = (folder, graph)
    return made


@pytest.mark.parametrize("recipe", FLOORS)
@pytest.mark.parametrize("name", NAMES)
def test_operators_of_every_part(
    tiny_checkpoint: Path, emitted: dict[tuple[str, str], tuple[Path, Graph]], name: str, recipe: str
) -> None:
    part, (folder, graph) = parts(tiny_checkpoint)[name], emitted[recipe, name]
    assert graph.path == f"tflite/{name}.tflite" and graph.files == (graph.path,)
    unit = "cpu" if name == "text_encoder" else "gpu"  # the GPU delegate refuses its lookups
    assert graph.compute_unit == unit
    assert graph.rewrites == {
        "chunked_attention": part.sites.get("attention", 0),
        "centred_group_norm": part.sites.get("group_norm", 0),
        "centred_layer_norm": part.sites.get("layer_norm", 0),
        "quick_gelu": part.sites.get("quick_gelu", 0),
        "split_timesteps": part.sites.get("sinusoidal_embedding", 0),
    }
    assert graph.ops["SOFTMAX"] == part.sites["attention"]
    products = 1 if name.startswith("vae") else 2  # of one head, the converter makes a FULLY_CONNECTED of the other
    assert graph.ops["BATCH_MATMUL"] == products * part.sites["attention"]
    assert graph.ops["RSQRT"] == part.sites.get("group_norm", 0) + part.sites.get("layer_norm", 0)
    assert sorted(p.name for p in (folder / "tflite").iterdir()) == sorted(f"{each}.tflite" for each in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_matrix_is_stored_in_half(
    tiny_checkpoint: Path, emitted: dict[tuple[str, str], tuple[Path, Graph]], name: str
) -> None:
    """Under its own name; in float32 too."""
    folder, graph = emitted["fp16", name]
    weights = parts(tiny_checkpoint)[name].weights
    matrices = [key for key, ref in weights.items() if len(ref.shape) > 1]
    assert graph.ops["DEQUANTIZE"] == len(matrices)
    assert "DEQUANTIZE" not in emitted["fp32", name][1].ops
    model = read_model(folder / graph.path)
    tensors = model.subgraphs[0].tensors
    places = [(each, WEIGHT_OPERAND.get(operator_name(model, each))) for each in model.subgraphs[0].operators]
    operands = [tensors[each.inputs[place]] for each, place in places if place is not None]
    in_float32 = [tensor for tensor in operands if data_of(model, tensor) is not None]  # others are computed
    assert len(in_float32) == 2 * graph.rewrites["split_timesteps"]  # its tables
    assert named_constants(model) == {key: ("FLOAT16", prod(weights[key].shape)) for key in matrices}
    single = named_constants(read_model(emitted["fp32", name][0] / graph.path))
    assert single == {key: ("FLOAT32", prod(weights[key].shape)) for key in matrices}


def named_constants(model: Any) -> dict[str, tuple[str, int]]:
    """Type and number of values of the constants that have a weight's name."""
    constants = {tensor.name.decode(): tensor for tensor in model.subgraphs[0].tensors if is_constant(model, tensor)}
    return {
        name: (TYPES[tensor.type], prod(tensor.shape)) for name, tensor in constants.items() if name.endswith("weight")
    }


@pytest.mark.parametrize("name", NAMES)
def test_buffers_are_aligned(emitted: dict[tuple[str, str], tuple[Path, Graph]], name: str) -> None:
    """The file is mapped at a page's start, so addresses tell offsets."""
    folder, graph = emitted["fp16", name]
    buffers = [buffer.data for buffer in read_model(folder / graph.path).buffers if buffer.data is not None]
    assert len(buffers) > 50
    assert {array.__array_interface__["data"][0] % ALIGNMENT for array in buffers} == {0}


@pytest.mark.parametrize("recipe", FLOORS)
@pytest.mark.parametrize("name", NAMES)
def test_says_nothing_of_what_made_it(
    emitted: dict[tuple[str, str], tuple[Path, Graph]], name: str, recipe: str
) -> None:
    folder, graph = emitted[recipe, name]
    raw = (folder / graph.path).read_bytes()
    for word in (b".py", b"torch", b"Module"):
        assert word not in raw


@pytest.mark.slow
def test_topology_of_stable_diffusion_15(tmp_path: Path) -> None:
    part = narrow_sd15_unet(tmp_path)
    graph = emit(part, artifact(), tmp_path, open_batch=False)
    assert graph.rewrites == {
        "chunked_attention": 32,
        "centred_group_norm": 61,
        "centred_layer_norm": 48,
        "quick_gelu": 0,
        "split_timesteps": 1,
    }
    ops = {"SOFTMAX": 32, "BATCH_MATMUL": 64, "GELU": 16, "RSQRT": 61 + 48}
    assert {op: graph.ops.get(op, 0) for op in ops} == ops
    assert graph.ops["DEQUANTIZE"] == sum(len(ref.shape) > 1 for ref in part.weights.values())
    example = part.example(0)
    found = open_runner(tmp_path / graph.path, part.spec)({key: tensor.numpy() for key, tensor in example.items()})
    with torch.no_grad():
        (reference,) = load_module(part)(*example.values())
    assert psnr(reference.numpy(), found["out_sample"]) >= FLOORS["fp16"]
    assert SD15_SITES["silu"] == part.sites["silu"]


def test_the_android_apps_engine_agrees(
    tiny_checkpoint: Path, emitted: dict[tuple[str, str], tuple[Path, Graph]], tensorflow: Path
) -> None:
    """On every file of float32 and float16 storage; integer files are in test_tflite_integers.py."""
    assert len(emitted) == 8
    for (recipe, name), (folder, graph) in emitted.items():
        assert is_for_it(folder / graph.path)
        inputs = {key: tensor.numpy() for key, tensor in parts(tiny_checkpoint)[name].example(0).items()}
        theirs = open_there(tensorflow, folder / graph.path, graph.spec)(inputs)
        for key, ours in open_runner(folder / graph.path, graph.spec, threads=1)(inputs).items():
            assert psnr(ours, theirs[key]) >= FLOORS["fp32"], f"{recipe} {name}.{key}"


def test_the_android_apps_engine_is_this_one() -> None:
    pom = (ROOT / "android_demo/pom.xml").read_text()
    assert f"<tflite.version>{version()}</tflite.version>" in pom


def test_weights_that_no_file_can_hold(tmp_path: Path) -> None:
    """The error comes before anything is read: the file of these weights has only eight of their values."""
    part = linear(tmp_path)
    part = replace(part, weights={name: Rows(Reshaped(w, (1, 2**14 + 1)), 2**15) for name, w in part.weights.items()})
    with pytest.raises(
        ProofError, match="part has 4.3 GB of weights, and a TFLite file is limited to 2.1 GB: use --recipe fp16"
    ):
        emit(part, artifact("fp32"), tmp_path, open_batch=False)


def test_the_ladder_where_a_file_cannot_hold_float32(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, name = open_checkpoint(str(tiny_checkpoint), progress=lambda line: None), "vae_encoder"
    trajectories = record(checkpoint, list(parts(tiny_checkpoint).values()), [Request("red apple", steps=1)])
    monkeypatch.setattr("pocketdiffusion.export.backends.tflite.BACKEND", replace(BACKEND, largest=1000))
    part, target = parts(tiny_checkpoint)[name], load_target("galaxy-s24")
    folder = tmp_path / "bundle"
    fitted = emit_within_float16(part, artifact(), float_plan(part, "fp16"), folder, trajectories, open_batch=False)
    original = Original(checkpoint, [part], trajectories)
    reports = judge_rungs(fitted, target, original, folder, progress=lambda line: None)
    assert all(report.passed for report in reports)
    assert [report.kind for report in reports] == [Kind.REWRITES, Kind.ROUNDING, Kind.SAME_WEIGHTS, Kind.REPLAY]
    assert {report.floor_db for report in reports if report.kind == Kind.SAME_WEIGHTS} == {105}
    assert list(tmp_path.iterdir()) == [folder]


def linear(folder: Path) -> Component:
    inputs = {"x": torch.randn(1, 8)}
    return component_of(folder, lambda: torch.nn.Linear(8, 8), inputs, {"y": (1, 8)}, {})


def test_a_marker_without_a_body(tiny_checkpoint: Path, tmp_path: Path) -> None:
    part = parts(tiny_checkpoint)["text_encoder"]
    wanted = artifact(rewrites=("fused_attention", "quick_gelu"))
    with pytest.raises(
        ProofError, match="the TFLite backend has no lowering of the operator pocketdiffusion.attention"
    ):
        emit(part, wanted, tmp_path, open_batch=False)


def test_the_galaxy_asks_for_these_rewrites() -> None:
    (wanted,) = load_target("galaxy-s24").artifacts
    assert wanted == artifact()
