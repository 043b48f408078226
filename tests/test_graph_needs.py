"""What a graph's entry says of engine, memory and compute units: small files written by hand, and an export."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.command import call
from support.sample_bundle import write_sample
from support.tflite_files import Value, write_tflite

from pocketdiffusion.export.backends.live_tensors import Operation, largest_live
from pocketdiffusion.export.backends.onnx import capabilities as onnx_capabilities
from pocketdiffusion.export.backends.onnx.memory import count_memory as count_onnx
from pocketdiffusion.export.backends.tflite import capabilities as tflite_capabilities
from pocketdiffusion.export.backends.tflite.file import read_model, write_model
from pocketdiffusion.export.backends.tflite.memory import count_memory as count_tflite
from pocketdiffusion.reports.export import Report, write_report
from pocketdiffusion.runtime.bundle.bundle import open_bundle
from pocketdiffusion.runtime.bundle.graph_needs import Unit
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.bundle.sealing import seal
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec
from pocketdiffusion.runtime.verify.golden import read_golden
from pocketdiffusion.runtime.verify.known_units import warn_of_units

BAD = Unit(status="bad", evidence="measured_here", note="it draws another apple")


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return write_sample(tmp_path_factory.mktemp("sample")).graphs["onnx"]["vae_decoder"]


# Live tensors.

CHAIN = (Operation(("x",), ("a",)), Operation(("a",), ("b",)), Operation(("b",), ("y",)))
SIZES = {"x": 10, "a": 100, "b": 1000, "y": 1}


def test_a_chain_holds_two_tensors_and_the_input() -> None:
    assert largest_live(CHAIN, SIZES, ["x"], ["y"]) == 10 + 100 + 1000


def test_a_skip_connection_is_alive_until_it_is_added() -> None:
    skip = (*CHAIN[:2], Operation(("b",), ("c",)), Operation(("c", "a"), ("y",)))
    assert largest_live(skip, {**SIZES, "c": 500}, ["x"], ["y"]) == 10 + 100 + 1000 + 500


def test_an_output_stays_and_weights_take_nothing() -> None:
    early = (Operation(("x", "weight"), ("y",)), *CHAIN[:2])
    assert largest_live(early, {**SIZES, "y": 7}, ["x"], ["y", "b"]) == 10 + 7 + 100 + 1000


def test_a_reshaped_tensor_is_the_same_one() -> None:
    turned = (Operation(("x",), ("a",)), Operation(("a",), ("v",), reshapes=True), Operation(("v",), ("y",)))
    sizes = {"x": 10, "a": 100, "v": 100, "y": 1}
    assert largest_live(turned, sizes, ["x"], ["y"]) == 10 + 100 + 1
    late = (*turned, Operation(("y",), ("z",)), Operation(("v", "z"), ("w",)))
    assert largest_live(late, {**sizes, "z": 1000, "w": 1}, ["x"], ["w"]) == 10 + 100 + 1 + 1000


# ONNX.


def value(name: str, *shape: int | str, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def save(folder: Path, nodes: list[onnx.NodeProto], ends: list[onnx.ValueInfoProto], *rest: object) -> Path:
    """`ends` are the input and the output; `rest` the constants and the values between."""
    constants = [each for each in rest if isinstance(each, onnx.TensorProto)]
    between = [each for each in rest if isinstance(each, onnx.ValueInfoProto)]
    body = helper.make_graph(nodes, "main", ends[:1], ends[1:], constants, value_info=between)
    opsets = [helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("", 21)]
    onnx.save(helper.make_model(body, opset_imports=opsets), str(folder / "model.onnx"))
    return folder / "model.onnx"


def half_product(folder: Path, batch: int | str) -> Path:
    """x [batch, 4, 8] times a weight [8, 16] that is stored in float16."""
    weight = helper.make_tensor("w", TensorProto.FLOAT16, (8, 16), np.ones(128, np.float16))
    nodes = [
        helper.make_node("Cast", ["w"], ["w32"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "w32"], ["h"]),
        helper.make_node("Sigmoid", ["h"], ["y"]),
    ]
    shapes = value("w32", 8, 16), value("h", *([None] if batch == "batch" else [batch]), 4, 16)
    return save(folder, nodes, [value("x", batch, 4, 8), value("y", batch, 4, 16)], weight, *shapes)


def test_onnx_weights_of_float16_are_counted_as_they_are_held(tmp_path: Path) -> None:
    memory = count_onnx(half_product(tmp_path, 1))
    assert memory.weights_bytes == 4 * 8 * 16
    assert memory.activations_bytes == 4 * (4 * 8 + 2 * 4 * 16)


def convolutions(folder: Path, kind: int) -> Path:
    """x [1, 4, 8, 8] by two convolutions, [16, 4, 3, 3] and [4, 16, 1, 1], of weights that are stored as `kind`."""
    nodes, weights, shapes, last = [], [], [], "x"
    for name, shape, out in (("a", (16, 4, 3, 3), "h"), ("b", (4, 16, 1, 1), "y")):
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        weights.append(helper.make_tensor(name, kind, shape, np.ones(shape, dtype).ravel()))
        used = name
        if kind != TensorProto.FLOAT:
            used = f"{name}32"
            nodes.append(helper.make_node("Cast", [name], [used], to=TensorProto.FLOAT))
            shapes.append(value(used, *shape))
        pads = [shape[2] // 2] * 4
        nodes.append(helper.make_node("Conv", [last, used], [out], kernel_shape=shape[2:], pads=pads))
        last = out
    return save(
        folder, nodes, [value("x", 1, 4, 8, 8), value("y", 1, 4, 8, 8)], *weights, *shapes, value("h", 1, 16, 8, 8)
    )


def test_onnx_loading_has_widened_convolutions_twice(tmp_path: Path) -> None:
    first, second = 4 * 16 * 4 * 9, 4 * 4 * 16
    half, full = (count_onnx(convolutions(tmp_path, kind)) for kind in (TensorProto.FLOAT16, TensorProto.FLOAT))
    assert half.weights_bytes == full.weights_bytes == first + second
    assert half.loading_bytes == 2 * (first + second) + 3 * first
    assert full.loading_bytes == first + second + 3 * first
    assert count_onnx(half_product(tmp_path, 1)).loading_bytes == 2 * 4 * 8 * 16


def test_an_open_batch_counts_both_halves(tmp_path: Path) -> None:
    """The shape in between is not stated: it follows from the batch."""
    memory = count_onnx(half_product(tmp_path, "batch"))
    assert memory.activations_bytes == 2 * 4 * (4 * 8 + 2 * 4 * 16) and "of 2 samples in a call" in memory.counted


def test_a_shape_that_nobody_knows_is_said(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gloss", ["x"], ["h"], domain="com.microsoft"),
        helper.make_node("Sigmoid", ["h"], ["y"]),
    ]
    memory = count_onnx(save(tmp_path, nodes, [value("x", 1, 4), value("y", 1, 4)]))
    assert memory.activations_bytes is None and "the shape of h is not known" in memory.counted


def integer_product(folder: Path, rows: int, kind: int = TensorProto.INT8) -> Path:
    """x [rows, 8] between pairs, times a weight of integers."""
    constants = [
        helper.make_tensor("step", TensorProto.FLOAT, (), [0.1]),
        helper.make_tensor("zero", TensorProto.UINT16, (), [0]),
        helper.make_tensor("codes", kind, (4, 8), [1] * 32),
        helper.make_tensor("scales", TensorProto.FLOAT, (4,), [0.1] * 4),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["r"]),
        helper.make_node("DequantizeLinear", ["codes", "scales"], ["w"], axis=0),
        helper.make_node("Gemm", ["r", "w"], ["y"], name="to_q/Gemm", transB=1),
    ]
    between = [value("q", rows, 8, kind=TensorProto.UINT16), value("r", rows, 8), value("w", 4, 8)]
    return save(folder, nodes, [value("x", rows, 8), value("y", rows, 4)], *constants, *between)


def test_onnx_integers_stay_integers_and_are_widened_at_each_call(tmp_path: Path) -> None:
    memory = count_onnx(integer_product(tmp_path, 17))
    assert memory.weights_bytes == 4 + 2 + 32 + 4 * 4
    assert memory.activations_bytes == 4 * (17 * 8) * 2 + 4 * 32 + 4 * 17 * 4  # x, r, w, y: more than x, q, r


def test_onnx_integers_before_a_float_product_are_read_where_the_file_is_mapped(tmp_path: Path) -> None:
    constants = [
        helper.make_tensor("table", TensorProto.FLOAT, (5, 8), [0.1] * 40),
        helper.make_tensor("codes", TensorProto.INT8, (4, 8), [1] * 32),
        helper.make_tensor("scales", TensorProto.FLOAT, (4,), [0.1] * 4),
    ]
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["x"]),
        helper.make_node("DequantizeLinear", ["codes", "scales"], ["w"], axis=0),
        helper.make_node("Gemm", ["x", "w"], ["y"], transB=1),
    ]
    ends = [value("ids", 3, kind=TensorProto.INT64), value("y", 3, 4)]
    memory = count_onnx(save(tmp_path, nodes, ends, *constants, value("x", 3, 8), value("w", 4, 8)))
    assert memory.mapped_bytes == 4 * 5 * 8 + 4 * 8 and memory.weights_bytes == 4 * 4
    nodes.append(helper.make_node("MatMul", ["y", "codes32"], ["z"]))  # another node needs the values themselves
    nodes.insert(0, helper.make_node("Cast", ["codes"], ["codes32"], to=TensorProto.FLOAT))
    ends[1] = value("z", 3, 8)
    shapes = value("x", 3, 8), value("w", 4, 8), value("y", 3, 4), value("codes32", 4, 8)
    both = count_onnx(save(tmp_path, nodes, ends, *constants, *shapes))
    assert both.mapped_bytes is not None and both.mapped_bytes >= 4 * 5 * 8
    assert both.weights_bytes == 4 * 4 + 4 * 4 * 8, "its cast is computed when the file is loaded"


def test_products_of_16_rows_are_known_bad_on_hexagon(tmp_path: Path, graph: Graph) -> None:
    shipped = graph.model_copy(update={"arithmetic": "int16", "profile": "std", "compute_unit": "npu", "ops": {}})
    for rows, status in ((15, "unknown"), (16, "bad"), (17, "unknown")):
        found = onnx_capabilities.units(integer_product(tmp_path, rows), shipped)["npu"]
        assert found.status == status, rows
        assert ("1 of this graph" in found.note) == (rows == 16)
    model = onnx.load(str(integer_product(tmp_path, 16)))
    assert onnx_capabilities.products_of_rows(model, 16) == ["to_q/Gemm"]


def test_what_else_is_refused_on_hexagon(tmp_path: Path, graph: Graph) -> None:
    std = graph.model_copy(update={"profile": "std", "ops": {}})
    assert "with a scale for each channel" in onnx_capabilities.units(integer_product(tmp_path, 17), std)["npu"].note
    spec = GraphSpec("part", (TensorSpec("x", ("batch", 4, 8), "float32"),), (TensorSpec("y", (1,), "float32"),))
    opened = std.model_copy(update={"spec": spec})
    assert "open shapes" in onnx_capabilities.units(half_product(tmp_path, "batch"), opened)["npu"].note


def test_fused_attention_is_known_bad_in_browsers(tmp_path: Path, graph: Graph) -> None:
    path = half_product(tmp_path, 1)
    found = onnx_capabilities.units(path, graph.model_copy(update={"ops": {"MultiHeadAttention": 2}}))
    assert found["webgpu"].status == "bad" and "MultiHeadAttention" in found["webgpu"].note and "npu" not in found
    std = graph.model_copy(update={"profile": "std", "ops": {"MatMul": 5}})
    assert {unit: known.status for unit, known in onnx_capabilities.units(path, std).items()} == {
        "npu": "unknown",
        "webgpu": "unknown",
    }


def test_onnx_engines(tmp_path: Path, graph: Graph) -> None:
    found = onnx_capabilities.needs(half_product(tmp_path, 1), graph)
    assert (found.name, found.least_version) == ("onnxruntime", "1.18")
    assert found.opset == {"ai.onnx": 21, "com.microsoft": 1}
    assert onnx_capabilities.needs(integer_product(tmp_path, 2, TensorProto.INT4), graph).least_version == "1.23"


# TFLite.


def widened_product(folder: Path, kind: str) -> Path:
    """x [1, 4] times a weight [4, 4] behind a DEQUANTIZE, plus a vector."""
    data = np.ones((4, 4), np.float16 if kind == "FLOAT16" else np.int8)
    values = [
        Value("x"),
        Value("w", (4, 4), kind, data, scales=(0.5,) if kind == "INT8" else ()),
        Value("wide", (4, 4)),
        Value("h"),
        Value("bias", (4,), data=np.ones(4, np.float32)),
        Value("flat", (4,)),
        Value("y", (4,)),
    ]
    operators = [
        ("DEQUANTIZE", "w", "wide"),
        ("FULLY_CONNECTED", "x wide", "h"),
        ("RESHAPE", "h", "flat"),
        ("ADD", "flat bias", "y"),
    ]
    return write_tflite(folder / "part.tflite", values, operators, "part")


@pytest.mark.parametrize(("kind", "copies"), [("FLOAT16", 1), ("INT8", 2)])
def test_tflite_weights_are_counted_as_xnnpack_holds_them(tmp_path: Path, kind: str, copies: int) -> None:
    memory = count_tflite(widened_product(tmp_path, kind))
    assert memory.weights_bytes == copies * 4 * 16 + 4 * 4
    assert memory.activations_bytes == 4 * (4 + 4 + 4)


def test_tflite_engines_and_units(tmp_path: Path, graph: Graph) -> None:
    path = widened_product(tmp_path, "FLOAT16")
    found = tflite_capabilities.needs(path, graph)
    assert (found.name, found.signature, found.opset) == ("litert", "part", {})
    model = read_model(path)
    for code in model.operatorCodes:
        code.version = 12
    write_model(model, path)
    assert tflite_capabilities.needs(path, graph).least_version == "2.17.0"
    units = {
        operator or storage: tflite_capabilities.units(
            path, graph.model_copy(update={"storage": storage, "ops": {operator: 1}})
        )["gpu"]
        for storage, operator in (("float16", ""), ("int8", ""), ("float16", "GATHER_ND"))
    }
    statuses = {key: each.status for key, each in units.items()}
    assert statuses == {"float16": "unknown", "int8": "bad", "GATHER_ND": "bad"}
    assert "refuses GATHER_ND" in units["GATHER_ND"].note


# What is warned of.


def test_an_export_says_what_it_needs_and_a_known_fault_is_the_last_word(tiny_bundle: Path, tmp_path: Path) -> None:
    manifest = open_bundle(tiny_bundle).manifest
    unet = manifest.graphs["onnx"]["unet"]
    assert unet.engine is not None and unet.engine.tried and unet.memory is not None
    assert unet.units["cpu"].status == "good" and unet.units["npu"].status == "bad" and not warn_of_units(manifest)
    assert unet.memory.weights_bytes == pytest.approx(4 * unet.parameters, rel=0.01)
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    changed = unet.model_copy(update={"units": {"cpu": BAD}})
    graphs = {"onnx": {**manifest.graphs["onnx"], "unet": changed}}
    draft = manifest.model_copy(update={"graphs": graphs})
    write_report(folder, Report(draft, [], [], read_golden(open_bundle(tiny_bundle)), {}, 1.0))
    assert '<p class="failed">WARNING: the onnx graph unet' in (folder / "report/report.html").read_text("utf-8")
    (warning,) = json.loads((folder / "report/report.json").read_text())["unit_warnings"]
    seal(folder, draft)
    done = call("verify", folder)
    (said,) = done.stderr.splitlines()
    assert done.returncode == 0
    assert said.startswith(
        "WARNING: the onnx graph unet is known to fail or to compute wrong results on its compute unit, cpu"
    )
    assert said.endswith("it draws another apple") and said == warning
    assert "cpu, bad" in call("inspect", folder).stdout
