"""Products of integers in ONNX: the same numbers as torch's, whatever the convolution; what is shared; what is not."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from support.integer_parts import calibrate, emitted, example, in_torch, operators, plan_for, read, words
from support.traced_parts import artifact, component_of, psnr
from torch import nn

from pocketdiffusion.export.backends.emission import emit
from pocketdiffusion.export.backends.intermediate_outputs import open_layers
from pocketdiffusion.export.backends.onnx.quantization import products as onnx_products
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.families import components
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.export.reference.torch_runner import open_rewritten
from pocketdiffusion.quantize.qparams import ValueRange, affine
from pocketdiffusion.quantize.scheme import Activation, Plan, Scheme
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.engines import onnx as runners
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.runner import Runner

pytestmark = pytest.mark.slow  # each test emits a graph, or starts a process

PRODUCTS: list[tuple[Activation, str]] = [("int8", "ort"), ("int8", "std"), ("dynamic", "ort"), ("dynamic", "std")]


@cache
def unet(folder: Path) -> Component:
    return next(
        p for p in components(open_checkpoint(str(folder), progress=lambda line: None)) if p.spec.name == "unet"
    )


def opened_without_vnni(path: Path, graph: Graph, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """Open a graph as on x86 without VNNI: with other kernels of onnxruntime, which read each weight as uint8."""
    with monkeypatch.context() as patch:
        patch.setattr(runners, "_sums_saturate", lambda: True)
        careful = runners.open_runner(path / graph.path, graph.spec, threads=1)
    options = careful.session.get_session_options()  # type: ignore[attr-defined]
    assert options.get_session_config_entry("session.x64quantprecision") == "1"
    return careful


@pytest.mark.parametrize(("activation", "profile"), PRODUCTS)
@pytest.mark.parametrize("bits", [8, 4])
def test_products_are_torchs(tmp_path: Path, activation: Activation, profile: str, bits: int) -> None:
    """No rounding follows another one here, so that only the order of float sums differs."""
    part = operators(tmp_path)
    plan = plan_for(part, bits, activation=activation)
    graph, runner = emitted(part, plan, tmp_path / "out", profile)
    assert (graph.storage, graph.arithmetic) == (f"int{bits}", "int8")
    assert graph.ops["MatMulIntegerToFloat" if profile == "ort" else "MatMulInteger"] == 9
    assert not graph.ops.keys() & {"Conv", "Gemm", "MatMul"}
    found, wanted = runner(example(part)), in_torch(part, plan)(example(part))
    exact = open_rewritten(part, ())(example(part))
    assert min(psnr(wanted[name], found[name]) for name in wanted) >= 120
    assert max(psnr(exact[name], found[name]) for name in wanted) < 60


@pytest.mark.parametrize(("activation", "profile"), PRODUCTS[::3])
def test_patches_in_bands_are_the_same(
    tmp_path: Path, activation: Activation, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = operators(tmp_path)
    plan = plan_for(part, activation=activation)
    undivided = emitted(part, plan, tmp_path / "undivided", profile)
    monkeypatch.setattr(onnx_products, "PATCHES", 3 * 8 * 9 * 64)  # three rows of `same`, one of `wide`
    bands = emitted(part, plan, tmp_path / "bands", profile)
    assert (undivided[0].ops.get("Slice"), bands[0].ops["Slice"]) == (None, 4 + 7)
    for name, x in undivided[1](example(part)).items():
        np.testing.assert_array_equal(bands[1](example(part))[name], x)
    careful = opened_without_vnni(tmp_path / "bands", bands[0], monkeypatch)  # refuses a weight of several operators
    for name, x in undivided[1](example(part)).items():
        np.testing.assert_array_equal(careful(example(part))[name], x)
    sizes = [(tmp_path / name / "onnx/part/model.onnx_data").stat().st_size for name in ("undivided", "bands")]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize(("activation", "profile"), PRODUCTS[:3:2])
def test_a_shared_input_is_rounded_once(tmp_path: Path, activation: Activation, profile: str) -> None:
    """The range includes the calibrated ranges of all operators that read it."""
    part = operators(tmp_path)
    plan = plan_for(part, activation=activation)
    ranges = {**plan.inputs, "to_q.weight": ValueRange(-9.0, 0.5), "to_k.weight": ValueRange(-1.0, 7.0)}
    graph, _ = emitted(part, replace(plan, inputs=ranges), tmp_path / "out", profile)
    model = read(tmp_path / "out", graph)
    rounding = [node for node in model.graph.node if node.op_type.endswith("QuantizeLinear")]
    assert sorted(node.input[0] for node in rounding) == ["picture", "tokens", "vector"]
    if activation == "int8":
        constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
        (tokens,) = (node for node in rounding if node.input[0] == "tokens")
        scale, zero_point = affine(ValueRange(-9.0, 7.0), 8)
        assert constants[tokens.input[1]] == np.float32(scale) and constants[tokens.input[2]] == zero_point + 128
        assert constants[tokens.input[2]].dtype == np.uint8


@pytest.mark.parametrize(("activation", "profile"), PRODUCTS[::3])
def test_a_unet_loses_as_much_as_in_torch(
    tiny_checkpoint: Path, tmp_path: Path, activation: Activation, profile: str
) -> None:
    """Roundings follow one another, so that a difference in the last bit changes some, and these change others: the two
    errors are equally large, and not equal."""
    part = unet(tiny_checkpoint)
    plan = plan_for(part, activation=activation)
    graph, runner = emitted(part, plan, tmp_path / "out", profile)
    exact = open_rewritten(part, ())(example(part))["out_sample"]
    cost = psnr(exact, in_torch(part, plan)(example(part))["out_sample"])
    assert 25 < cost < 60
    assert psnr(exact, runner(example(part))["out_sample"]) == pytest.approx(cost, abs=1.5)
    assert [t.dtype for t in (*graph.spec.inputs, *graph.spec.outputs)] == ["float32"] * 4
    consumers = [node.op_type for node in read(tmp_path / "out", graph).graph.node if "timestep" in node.input]
    assert consumers and not any("Quantize" in operator for operator in consumers)


def test_islands_stay_float(tiny_checkpoint: Path, tmp_path: Path) -> None:
    part = unet(tiny_checkpoint)
    plan = plan_for(part, activation="int8")
    kept = [name for name in plan.schemes if "conv_in" in name or "conv_out" in name or "time_embedding" in name]
    islands = {name: Scheme("linear", 8) for name in kept}
    mixed = replace(plan, schemes={**plan.schemes, **islands})
    graph, runner = emitted(part, mixed, tmp_path / "out")
    assert graph.arithmetic == "int8" and (graph.ops["Conv"], graph.ops["Gemm"]) == (2, 2) and len(kept) == 4
    exact = open_rewritten(part, ())(example(part))["out_sample"]
    cost = psnr(exact, in_torch(part, mixed)(example(part))["out_sample"])
    assert psnr(exact, runner(example(part))["out_sample"]) == pytest.approx(cost, abs=1.5)


@pytest.mark.parametrize("activation", ["int8", pytest.param("dynamic", marks=pytest.mark.slow)])
def test_an_open_batch(tiny_checkpoint: Path, tmp_path: Path, activation: Activation) -> None:
    part = unet(tiny_checkpoint)
    graph, runner = emitted(part, plan_for(part, activation=activation), tmp_path / "out", open_batch=True)
    assert [t.shape[0] for t in graph.spec.inputs] == ["batch", 1, "batch"]
    one = runner(example(part))["out_sample"]
    two = {name: x if name == "timestep" else np.concatenate([x, x]) for name, x in example(part).items()}
    np.testing.assert_allclose(runner(two)["out_sample"], np.concatenate([one, one]), atol=1e-2 * np.abs(one).max())


def test_sums_are_exact_on_x86_without_vnni(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = operators(tmp_path)
    for activation in ("int8", "float"):
        plan = plan_for(part, activation=activation)
        graph, runner = emitted(part, plan, tmp_path / activation)
        careful = opened_without_vnni(tmp_path / activation, graph, monkeypatch)
        for name, x in runner(example(part)).items():
            np.testing.assert_array_equal(careful(example(part))[name], x)


def test_layers_have_exact_sums_on_x86_without_vnni(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two products of the largest uint8 and int8, 255 * 127, are more than int16 holds."""

    def build() -> nn.Module:
        layer = nn.Linear(64, 8)
        nn.init.constant_(layer.weight, 1.0)
        return nn.Sequential(layer)

    x = np.ones((1, 4, 64), np.float32)
    part = component_of(tmp_path, build, {"x": torch.from_numpy(x)}, {"y": (1, 4, 8)}, {})
    plan = plan_for(part, activation="int8")
    graph, _ = emitted(part, plan, tmp_path / "out", "ort")
    monkeypatch.setattr(runners, "_sums_saturate", lambda: True)
    (layer,) = open_layers(tmp_path / "out", "onnx", graph)({"x": x}).values()
    assert psnr(in_torch(part, plan)({"x": x})["y"], layer) >= 120


@pytest.mark.parametrize(("bits", "group"), [(8, 0), (4, 0), (4, 32)])
def test_fixed_rows_of_an_embedding_on_x86_without_vnni(
    tmp_path: Path, bits: int, group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime computes rows with fixed indices once, and then reads them as uint8, as it does a weight."""
    part = words(tmp_path)
    plan = plan_for(part, bits, group)
    graph, _ = emitted(part, plan, tmp_path / "out")
    careful = opened_without_vnni(tmp_path / "out", graph, monkeypatch)
    assert psnr(in_torch(part, plan)(example(part))["states"], careful(example(part))["states"]) >= 120


def test_a_convolution_in_groups(tmp_path: Path) -> None:
    build = lambda: nn.Conv2d(8, 8, 3, groups=2)  # noqa: E731
    part = component_of(tmp_path, build, {"x": torch.randn(1, 8, 6, 6)}, {"y": (1, 8, 4, 4)}, {})
    plan = plan_for(part, activation="int8")
    with pytest.raises(ProofError, match="weight: there are no integer products for such a convolution"):
        emit(part, artifact(), tmp_path / "out", open_batch=False, plan=plan)
    weights_only = Plan("test", dict.fromkeys(plan.schemes, Scheme("linear", 8)))
    _, runner = emitted(part, weights_only, tmp_path / "weights")
    assert psnr(in_torch(part, weights_only)(example(part))["y"], runner(example(part))["y"]) >= 120


def test_one_layer_after_another(tmp_path: Path) -> None:
    """The output of an integer product is the input of the next one."""
    build = lambda: nn.Sequential(nn.Conv2d(8, 16, 3), nn.Conv2d(16, 8, 1), nn.Flatten(2), nn.Linear(36, 8))  # noqa: E731
    part = component_of(tmp_path, build, {"x": torch.randn(1, 8, 8, 8)}, {"y": (1, 8, 8)}, {})
    schemes = plan_for(part).schemes
    inputs, _ = calibrate(part, schemes)
    plan = Plan("test", dict.fromkeys(schemes, Scheme("linear", 8, 0, "int8")), inputs)
    graph, runner = emitted(part, plan, tmp_path / "out")
    assert graph.ops["QuantizeLinear"] == graph.ops["MatMulIntegerToFloat"] == 3
    assert psnr(in_torch(part, plan)(example(part))["y"], runner(example(part))["y"]) >= 60
