"""The order in which onnxruntime executes a graph: as it is counted, and with each widened weight just before its
reader."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper
from support.integer_parts import plan_for
from support.traced_parts import artifact, micro_unet

from pocketdiffusion.export.backends.emission import emit
from pocketdiffusion.export.backends.onnx.execution_order import (
    execution_order,
    put_widened_weights_before_readers,
)
from pocketdiffusion.export.backends.onnx.fp16_emulation import open_replay


def executed(path: Path, folder: Path, optimized: bool) -> list[str]:
    """Return the names of the nodes in the order in which onnxruntime executes them."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    session.run(None, {each.name: np.ones(each.shape, np.float32) for each in session.get_inputs()})
    events = json.loads(Path(session.end_profiling()).read_text())
    ran = sorted((each["ts"], each["name"]) for each in events if each["name"].endswith("_kernel_time"))
    return [name.removesuffix("_kernel_time") for _, name in ran]


@pytest.mark.parametrize("long_first", [True, False])
def test_branches_are_executed_as_counted(tmp_path: Path, long_first: bool) -> None:
    """Two branches from one node, of which the file lists either first, and two outputs."""
    long = [("Relu", "a", "l1"), ("Neg", "l1", "l2"), ("Abs", "l2", "l3")]
    short = [("Exp", "a", "s1")]
    branches = [*long, *short] if long_first else [*short, *long]
    listed = [("Abs", "x", "a"), *branches, ("Neg", "a", "z")]
    nodes = [helper.make_node(kind, [given], [result], name=result) for kind, given, result in listed]
    nodes.append(helper.make_node("Add", ["l3", "s1"], ["y"], name="y"))
    x, y, z = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xyz")
    path = tmp_path / "model.onnx"
    model = helper.make_model(
        helper.make_graph(nodes, "main", [x], [y, z]), opset_imports=[helper.make_opsetid("", 20)]
    )
    model.ir_version = 10
    onnx.save(model, path)
    expected = [node.name for node in execution_order(nodes)]
    assert expected != [node.name for node in nodes] and executed(path, tmp_path, optimized=False) == expected


def test_a_session_in_the_order_of_the_file_gets_each_weight_before_its_reader(tmp_path: Path) -> None:
    """The replay in float16 runs so: with all weights first, it held all of them in float32."""
    part = micro_unet(tmp_path)
    graph = emit(part, artifact(recipe="test"), tmp_path, open_batch=False, plan=plan_for(part))
    model = ir.load(tmp_path / graph.path)
    first = [node.op_type for node in model.graph][:20]
    assert set(first) == {"DequantizeLinear"}
    put_widened_weights_before_readers(model.graph)
    nodes = list(model.graph)
    for number, node in enumerate(nodes):
        if node.op_type == "DequantizeLinear":
            (use, *_) = node.outputs[0].uses()
            assert use.node is nodes[number + 1]
    seen: list[float] = []
    replay = open_replay(
        tmp_path / graph.path, graph.spec, "float32", lambda operator, name, largest: seen.append(largest)
    )
    given = {tensor.name: np.ones([int(size) for size in tensor.shape], np.float32) for tensor in graph.spec.inputs}
    assert replay(given).keys() == {"out_sample"} and len(seen) > len(first)


@pytest.mark.parametrize("bits", [8, 4])
def test_each_weight_is_widened_just_before_it_is_read(tmp_path: Path, bits: int) -> None:
    """The UNet's shortcuts and enlargements are read after a whole block."""
    part = micro_unet(tmp_path)
    graph = emit(part, artifact(recipe="test"), tmp_path, open_batch=False, plan=plan_for(part, bits=bits))
    nodes = onnx.load(tmp_path / graph.path, load_external_data=False).graph.node
    reader = {name: node.name for node in nodes for name in node.input}
    widened = {node.name: reader[node.output[0]] for node in nodes if node.op_type == "DequantizeLinear"}
    order = executed(tmp_path / graph.path, tmp_path, optimized=True)
    assert len(widened) > 20 and {*widened} <= {*order}
    waiting: list[str] = []
    for name in order:
        if name in widened:
            waiting.append(widened[name])
        elif waiting:
            assert {*waiting} == {name}, "a weight waits for its reader while other nodes run"
            waiting = []
