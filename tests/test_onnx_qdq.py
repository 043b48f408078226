"""Graphs of 16-bit activations for QNN: standard operators, everything rounded, and lint that says what is not."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from support.integer_parts import emitted, example, in_torch, operators, plan_for, read
from support.traced_parts import psnr

from pocketdiffusion.export.backends.onnx.lint import lint_static
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.families import components
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.quantize.qparams import affine
from pocketdiffusion.quantize.scheme import Plan, Scheme
from pocketdiffusion.runtime.errors import ProofError


@cache
def parts(folder: Path) -> dict[str, Component]:
    return {part.spec.name: part for part in components(open_checkpoint(str(folder), progress=lambda line: None))}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Component, Plan, str]:
    """Return folder, component, plan and file name of a graph of all operators."""
    folder = tmp_path_factory.mktemp("qdq")
    part = operators(folder)
    plan = plan_for(part, activation="int16")
    graph, _ = emitted(part, plan, folder, "std")
    return folder, part, plan, graph.path


def test_operators_are_torchs(tmp_path: Path) -> None:
    """Only the rounding of outputs, to 1/65535 of 1.25 times the range, is not done in torch."""
    part = operators(tmp_path)
    plan = plan_for(part, activation="int16")
    graph, runner = emitted(part, plan, tmp_path / "out", "std")
    assert (graph.storage, graph.arithmetic, graph.profile) == ("int8", "int16", "std")
    wanted, found = in_torch(part, plan)(example(part)), runner(example(part))
    assert min(psnr(wanted[name], found[name]) for name in wanted) >= 90
    bare = Plan(plan.recipe, plan.schemes, plan.inputs)
    _, runner = emitted(part, bare, tmp_path / "bare", "std")
    found = runner(example(part))
    assert min(psnr(wanted[name], found[name]) for name in wanted) >= 120


def test_the_form_that_qnn_takes(made: tuple[Path, Component, Plan, str]) -> None:
    folder, part, plan, path = made
    model = onnx.load(folder / path)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 21)]
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    giver = {output: node for node in model.graph.node for output in node.output}
    products = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    assert sorted(node.op_type for node in products) == ["Conv"] * 4 + ["Gemm"] * 5
    for node in products:
        owner = node.name.rpartition("/")[0]
        x, weight, *bias = (giver[name] for name in node.input)
        step, middle = affine(plan.inputs[f"{owner}.weight"], 16)
        assert (constants[x.input[1]], constants[x.input[2]]) == (np.float32(step), middle + 32768)
        assert constants[x.input[2]].dtype == np.uint16 and giver[x.input[0]].op_type == "QuantizeLinear"
        assert constants[weight.input[0]].dtype == np.int8 and weight.input[0] == f"{owner}.weight"
        assert [a.i for a in weight.attribute if a.name == "axis"] == [0]
        for each in bias:
            quantized, scale = constants[each.input[0]], constants[each.input[1]]
            wanted = part.weights[f"{owner}.bias"].read()
            assert quantized.dtype == np.int32
            np.testing.assert_allclose(scale, step * constants[weight.input[1]], rtol=1e-6)
            np.testing.assert_allclose(quantized * scale, wanted, atol=0.51 * scale.max())
    takers = [node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert takers.count("picture") == takers.count("vector") == 1 and len(takers) == 3 + 9


def test_a_bias_that_is_large_at_its_scale(tmp_path: Path) -> None:
    """A bias that overflows int32 at its scale gets a coarser scale."""
    part = operators(tmp_path)
    (place,), (bias,) = (part.weights[f"to_out.{leaf}"].places for leaf in ("weight", "bias"))
    raw = bytearray(place.file.read_bytes())
    tiny = place.read() * np.float32(1e-3)
    tiny[0] = 0  # one channel has no scale at all
    raw[place.offset : place.offset + place.nbytes] = tiny.tobytes()
    raw[bias.offset : bias.offset + bias.nbytes] = (bias.read() + np.float32(50)).tobytes()
    place.file.write_bytes(raw)
    plan = plan_for(part, activation="int16")
    _, runner = emitted(part, Plan("test", plan.schemes, plan.inputs), tmp_path / "out", "std")
    wanted, found = in_torch(part, plan)(example(part))["out"], runner(example(part))["out"]
    assert psnr(wanted, found) >= 120


@pytest.mark.parametrize("name", ["unet", "text_encoder"])
def test_a_complete_part(tiny_checkpoint: Path, tmp_path: Path, name: str) -> None:
    part = parts(tiny_checkpoint)[name]
    plan = plan_for(part, activation="int16")
    graph, runner = emitted(part, plan, tmp_path / "out", "std", open_batch=True)
    assert all(isinstance(size, int) for t in (*graph.spec.inputs, *graph.spec.outputs) for size in t.shape)
    assert [t.dtype for t in graph.spec.inputs] == [t.dtype for t in part.spec.inputs]
    wanted, found = in_torch(part, plan)(example(part)), runner(example(part))
    assert min(psnr(wanted[key], found[key]) for key in wanted) >= 70


def test_an_island_is_allowed(tmp_path: Path) -> None:
    part = operators(tmp_path)
    plan = plan_for(part, activation="int16")
    mixed = Plan("test", {**plan.schemes, "point.weight": Scheme("linear", 8)}, plan.inputs, plan.outputs)
    graph, _ = emitted(part, mixed, tmp_path / "out", "std")
    (point,) = [node for node in read(tmp_path / "out", graph).graph.node if node.name == "point/Conv"]
    assert point.input[0] == "picture"


def find(model: ir.Model, name: str) -> ir.Node:
    return next(node for node in model.graph if node.name == name)


def skip_rounding(model: ir.Model) -> None:
    node = find(model, "same/Conv")
    node.replace_input_with(0, next(value for value in model.graph.inputs if value.name == "picture"))


def round_to_bytes(model: ir.Model) -> None:
    producer = find(model, "row/QuantizeLinear")
    producer.outputs[0].dtype = ir.DataType.UINT8


def skip_output_rounding(model: ir.Model) -> None:
    node = find(model, "down/Conv")
    (after,) = [user for user, _ in node.outputs[0].uses()]
    (back,) = [user for user, _ in after.outputs[0].uses()]
    ir.convenience.replace_all_uses_with(back.outputs[0], node.outputs[0], replace_graph_outputs=True)


def float_weight(model: ir.Model) -> None:
    node = find(model, "bare/Gemm")
    node.replace_input_with(1, ir.Value(name="other", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape((48, 64))))


def open_size(model: ir.Model) -> None:
    value = find(model, "wide/Conv").outputs[0]
    value.shape = ir.Shape(["batch", *list(value.shape or ())[1:]])


def quantized_input(model: ir.Model) -> None:
    model.graph.inputs[0].dtype = ir.DataType.UINT16


@pytest.mark.parametrize(
    ("corrupt", "words"),
    [
        (skip_rounding, "^same/Conv: its input is not the output of a DequantizeLinear of uint16"),
        (round_to_bytes, "^(row|bare)/Gemm: its input is not the output of a DequantizeLinear of uint16"),
        (skip_output_rounding, "^down/Conv: its output must only go to a QuantizeLinear to uint16"),
        (float_weight, "^bare.weight: no convolution or matrix product reads this weight as integers"),
        (open_size, "^wide/Conv: a neural processor needs fixed sizes"),
        (quantized_input, "^picture: this input or output of the graph is uint16"),
    ],
)
def test_lint_finds_what_is_not_rounded(
    made: tuple[Path, Component, Plan, str], corrupt: Callable[[ir.Model], None], words: str
) -> None:
    folder, _, plan, path = made
    model = ir.load(folder / path)
    lint_static(model, plan)
    corrupt(model)
    with pytest.raises(ProofError, match=words):
        lint_static(model, plan)
