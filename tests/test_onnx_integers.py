"""Integer weights in ONNX are stored as the plan says, and compute as torch does with such weights."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from support.integer_parts import VOCABULARY, calibrate, emitted, example, in_torch, operators, plan_for, read, words
from support.traced_parts import artifact, component_of, psnr
from torch import nn

from pocketdiffusion.export.backends.emission import emit, find_refusal
from pocketdiffusion.export.backends.fp16_emulation import open_replay
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.families import components
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.quantize.float16_range import Found
from pocketdiffusion.quantize.quantized_tensor import Linear, nbytes, store
from pocketdiffusion.quantize.scheme import FLOAT32, Activation, Plan, Scheme
from pocketdiffusion.runtime.errors import ProofError, UserError


@cache
def parts(folder: Path) -> dict[str, Component]:
    return {part.spec.name: part for part in components(open_checkpoint(str(folder), progress=lambda line: None))}


@pytest.mark.parametrize(
    ("bits", "group", "profile"),
    [
        (8, 0, "ort"),
        (8, 0, "std"),
        (8, 32, "ort"),
        (6, 0, "std"),
        (5, 32, "ort"),
        (4, 32, "std"),
        (4, 0, "ort"),
        (2, 32, "ort"),
    ],
)
def test_weights_alone_compute_what_torch_does(tmp_path: Path, bits: int, group: int, profile: str) -> None:
    """onnxruntime fuses DequantizeLinear and MatMul to an operator that has 60 dB."""
    part = operators(tmp_path)
    plan = plan_for(part, bits, group)
    graph, runner = emitted(part, plan, tmp_path / "out", profile)
    assert (graph.storage, graph.arithmetic) == (f"int{bits}", "float32")
    assert graph.stored == {f"int{bits}": 9} and graph.parameters == sum(p.numel() for p in part.build().parameters())
    assert graph.ops["DequantizeLinear"] == 9
    (standard,) = [o.version for o in read(tmp_path / "out", graph).opset_import if o.domain == ""]
    assert standard == (21 if bits <= 4 else 20)
    found, wanted = runner(example(part)), in_torch(part, plan)(example(part))
    assert min(psnr(wanted[name], found[name]) for name in wanted) >= 120


@pytest.mark.parametrize(
    ("activation", "unit"), [("float", "cpu"), ("int8", "cpu"), ("dynamic", "cpu"), ("int16", "npu")]
)
def test_qualcomms_processor_takes_16_bits_alone(tmp_path: Path, activation: Activation, unit: str) -> None:
    """Of a target for the NPU, only graphs with 16-bit activations are for it: other lossy graphs are for the CPU."""
    part = operators(tmp_path)
    plan = plan_for(part, activation=activation)
    wanted = replace(artifact("std"), recipe=plan.recipe, compute_unit="npu")
    assert emit(part, wanted, tmp_path / "out", open_batch=False, plan=plan).compute_unit == unit


@pytest.mark.parametrize(("name", "bits", "group", "profile"), [("unet", 8, 0, "std"), ("text_encoder", 4, 32, "ort")])
def test_a_complete_part(tiny_checkpoint: Path, tmp_path: Path, name: str, bits: int, group: int, profile: str) -> None:
    part = parts(tiny_checkpoint)[name]
    plan = plan_for(part, bits, group)
    _, runner = emitted(part, plan, tmp_path / "out", profile)
    found, wanted = runner(example(part)), in_torch(part, plan)(example(part))
    assert min(psnr(wanted[key], found[key]) for key in wanted) >= 105


@pytest.mark.parametrize(("bits", "group"), [(8, 0), (4, 32)])
def test_an_embedding_looks_up_quantized_values(tmp_path: Path, bits: int, group: int) -> None:
    part = words(tmp_path)
    plan = plan_for(part, bits, group)
    graph, runner = emitted(part, plan, tmp_path / "out")
    wanted = in_torch(part, plan)(example(part))
    assert psnr(wanted["states"], runner(example(part))["states"]) >= 140
    model = onnx.shape_inference.infer_shapes(read(tmp_path / "out", graph))
    floats = [v for v in model.graph.value_info if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]
    elements = [np.prod([d.dim_value for d in v.type.tensor_type.shape.dim]) for v in floats]
    assert len(elements) > 4 and max(elements) <= 2 * VOCABULARY  # scales of all words, never all words


@pytest.mark.parametrize(("bits", "group"), [(8, 0), (6, 0), (4, 32), (4, 0), (3, 32)])
def test_quantized_values_and_scales_are_as_stored(tmp_path: Path, bits: int, group: int) -> None:
    part = operators(tmp_path)
    plan = plan_for(part, bits, group)
    graph, _ = emitted(part, plan, tmp_path / "out")
    tensors = {t.name: t for t in read(tmp_path / "out", graph).graph.initializer}
    for name, scheme in plan.schemes.items():
        stored = store(part.weights[name].read(), scheme)
        assert isinstance(stored, Linear)
        quantized, scale = tensors[name], onnx.numpy_helper.to_array(tensors[f"{name}.scale"])
        assert quantized.data_type == (onnx.TensorProto.INT4 if bits <= 4 else onnx.TensorProto.INT8)
        np.testing.assert_array_equal(
            onnx.numpy_helper.to_array(quantized).astype(np.int8).ravel(), stored.quantized.ravel()
        )
        np.testing.assert_array_equal(scale.astype(np.float32).ravel(), stored.scale.ravel())
        assert scale.dtype == (np.float16 if group else np.float32)


@pytest.mark.parametrize(
    ("bits", "group", "activation", "profile"),
    [(8, 0, "float", "ort"), (4, 32, "float", "ort"), (8, 0, "int8", "ort"), (8, 0, "int16", "std")],
)
def test_the_data_file_is_as_large_as_the_plan_says(
    tmp_path: Path, bits: int, group: int, activation: Activation, profile: str
) -> None:
    build = lambda: nn.Sequential(nn.Conv2d(128, 256, 3), nn.Flatten(2), nn.Linear(64, 1024))  # noqa: E731
    part = component_of(tmp_path, build, {"x": torch.randn(1, 128, 10, 10)}, {"y": (1, 256, 1024)}, {})
    plan = plan_for(part, bits, group, activation)
    graph, _ = emitted(part, plan, tmp_path / "out", profile)
    promised = sum(nbytes(part.weights[name].shape, scheme) for name, scheme in plan.schemes.items())
    data = next((tmp_path / "out").rglob("model.onnx_data"))
    assert abs(data.stat().st_size - promised) <= 0.02 * promised


@pytest.mark.parametrize(
    ("bits", "group", "activation", "profile"),
    [(8, 0, "int8", "ort"), (8, 0, "dynamic", "std"), (8, 0, "int16", "std"), (4, 32, "float", "ort")],
)
def test_two_exports_are_the_same_bytes(
    tmp_path: Path, bits: int, group: int, activation: Activation, profile: str
) -> None:
    part = operators(tmp_path)
    plan = plan_for(part, bits, group, activation)
    graphs = [emitted(part, plan, tmp_path / side, profile)[0] for side in "ab"]
    assert graphs[0] == graphs[1]
    for file in graphs[0].files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize(
    ("activation", "profile"), [("float", "ort"), ("int8", "ort"), ("dynamic", "std"), ("int16", "std")]
)
def test_the_file_is_valid_and_names_modules(tmp_path: Path, activation: Activation, profile: str) -> None:
    part = operators(tmp_path)
    graph, _ = emitted(part, plan_for(part, activation=activation), tmp_path / "out", profile)
    model = read(tmp_path / "out", graph)
    if profile == "std":
        onnx.checker.check_model(tmp_path / "out" / graph.path, full_check=True)
        assert {opset.domain for opset in model.opset_import} == {""}
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    modules = {name for name, _ in part.build().named_modules()}
    assert {name.rpartition("/")[0] for name in names} == modules - {""}
    assert [t.dtype for t in (*graph.spec.inputs, *graph.spec.outputs)] == ["float32"] * 12
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


def test_a_replay_rounds_what_integer_weights_give(tmp_path: Path) -> None:
    part = operators(tmp_path)
    graph, runner = emitted(part, plan_for(part), tmp_path / "out")
    found: Found = {}

    def note(operator: str, result: str, largest: float) -> None:
        found[operator, result] = largest

    single, half = (
        open_replay(tmp_path / "out", "onnx", graph, arithmetic, note)(example(part))
        for arithmetic in ("float32", "float16")
    )
    wanted = runner(example(part))
    assert min(psnr(wanted[name], single[name]) for name in wanted) > 120
    assert all(55 < psnr(wanted[name], half[name]) < 85 for name in wanted)
    assert {operator for operator, _ in found} == {"Conv", "DequantizeLinear", "Gemm"}


@pytest.mark.parametrize(
    ("scheme", "profile", "nearest"),
    [
        (Scheme("palette", 8), "ort", "w8"),
        (Scheme("palette", 6, 16), "std", "w8"),
        (Scheme("palette", 4), "ort", "w4"),
        (Scheme("linear", 8, 0, "int16"), "ort", "w8a8"),
        (Scheme("linear", 4, 32, "int8"), "ort", "w8a8"),
        (Scheme("linear", 8, 32, "dynamic"), "std", "w8a8"),
        (Scheme("float", 16, 0, "int8"), "ort", "w8a8"),
    ],
)
def test_what_onnx_does_not_hold(tmp_path: Path, scheme: Scheme, profile: str, nearest: str) -> None:
    refusal = find_refusal([FLOAT32, scheme], "onnx", profile)
    assert refusal is not None and refusal.nearest == nearest
    part = operators(tmp_path)
    plan = Plan("mine", dict.fromkeys(plan_for(part).schemes, scheme))
    with pytest.raises(UserError, match=f"^onnx {profile} cannot use the recipe mine: .*; the nearest is {nearest}$"):
        emit(part, artifact(profile), tmp_path / "out", open_batch=False, plan=plan)
    assert not (tmp_path / "out").exists()


def test_what_onnx_holds() -> None:
    linear = [Scheme("linear", bits, group) for bits in range(2, 9) for group in (0, 32)]
    products = [Scheme("linear", 8, 0, activation) for activation in ("int8", "dynamic")]
    for profile in ("ort", "std"):
        assert find_refusal([FLOAT32, Scheme("float", 16), *linear, *products], "onnx", profile) is None
    assert find_refusal([Scheme("linear", 8, 0, "int16")], "onnx", "std") is None


def test_a_plan_that_was_not_calibrated(tmp_path: Path) -> None:
    part = operators(tmp_path)
    plan = plan_for(part, activation="int8")
    inputs = {name: value_range for name, value_range in plan.inputs.items() if name != "point.weight"}
    with pytest.raises(ProofError, match="^point.weight: the plan has no calibrated value range"):
        emit(part, artifact(), tmp_path / "out", open_batch=False, plan=Plan("test", plan.schemes, inputs))


def test_integers_for_what_is_no_product(tmp_path: Path) -> None:
    part = words(tmp_path)
    schemes = dict.fromkeys(plan_for(part).schemes, Scheme("linear", 8, 0, "dynamic"))
    with pytest.raises(ProofError, match=r"^(position|token)\.weight: its operator is not a convolution"):
        emit(part, artifact(), tmp_path / "out", open_batch=False, plan=Plan("test", schemes))


def test_a_weight_that_float16_cannot_hold(tmp_path: Path) -> None:
    """Scales are float16."""
    build = lambda: nn.Linear(8, 8)  # noqa: E731
    part = component_of(tmp_path, build, {"x": torch.randn(1, 8)}, {"y": (1, 8)}, {})
    (place,) = part.weights["weight"].places
    raw = bytearray(place.file.read_bytes())
    raw[place.offset : place.offset + 4] = np.float32(1e7).tobytes()
    place.file.write_bytes(raw)
    with pytest.raises(ProofError, match=r"^weight weight has the value 1e\+07"):
        emit(part, artifact(), tmp_path / "out", open_batch=False, plan=plan_for(part))


def test_calibration_is_of_the_inputs(tmp_path: Path) -> None:
    """The value ranges that these tests use have the extremes of the inputs."""
    part = operators(tmp_path)
    taken, _ = calibrate(part, plan_for(part).schemes)
    assert taken["same.weight"] == taken["wide.weight"] and taken["row.weight"].low == 0.0
    assert taken["to_q.weight"].high == float(example(part)["tokens"].max())
