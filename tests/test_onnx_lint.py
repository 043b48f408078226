from typing import Any

import onnx_ir as ir
import pytest

from pocketdiffusion.export.backends.onnx.lint import lint
from pocketdiffusion.runtime.errors import ProofError


def model_of(op: str, dtype: str = "FLOAT", inputs: int = 1, domain: str = "", opset: int = 20) -> ir.Model:
    """One node, named as the exporter names its nodes."""
    kind = ir.TensorType(ir.DataType[dtype])
    values = [ir.Value(name=f"x{n}", type=kind, shape=ir.Shape((1, 4, 8, 8))) for n in range(inputs)]
    node = ir.node(op, values, domain=domain, name=f"unet.conv_in/{op}")
    node.outputs[0].type = kind
    graph = ir.Graph(values, node.outputs, nodes=[node], opset_imports={"": opset, "com.microsoft": 1})
    return ir.Model(graph, ir_version=10)


@pytest.mark.parametrize(
    ("op", "options"),
    [
        ("Conv", {"inputs": 2}),
        ("Gelu", {}),
        ("Concat", {"inputs": 3}),
        ("Concat", {"inputs": 3, "dtype": "INT64"}),
        ("QuickGelu", {"domain": "com.microsoft"}),
        ("Attention", {"inputs": 3, "opset": 23}),
    ],
)
def test_kernels_that_exist(op: str, options: dict[str, Any]) -> None:
    assert lint(model_of(op, **options), "ort") == {op: 1}


@pytest.mark.parametrize(
    ("op", "options", "reason"),
    [
        ("GroupNormalization", {"inputs": 3, "opset": 21}, "GroupNormalization of opset 21"),
        ("GroupNorm", {"inputs": 3, "domain": "com.microsoft"}, "com.microsoft::GroupNorm of opset 1"),
        ("NhwcConv", {"inputs": 2, "domain": "com.microsoft"}, "com.microsoft::NhwcConv of opset 1"),
        ("Gelu", {"opset": 19}, "Gelu of opset 19"),
        ("Conv", {"inputs": 2, "dtype": "FLOAT16"}, r"Conv with tensor\(float16\)"),
        ("MultiHeadAttention", {"inputs": 3, "dtype": "FLOAT16", "domain": "com.microsoft"}, r"with tensor\(float16\)"),
        ("Gloss", {}, "Gloss of opset 20"),
    ],
)
def test_kernels_that_do_not(op: str, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ProofError, match=f"^unet.conv_in/{op}: onnxruntime has no CPU kernel for .*{reason}"):
        lint(model_of(op, **options), "ort")


def test_std_allows_only_the_standard() -> None:
    with pytest.raises(ProofError, match="^unet.conv_in/QuickGelu: com.microsoft::QuickGelu is not a standard"):
        lint(model_of("QuickGelu", domain="com.microsoft"), "std")
    with pytest.raises(ProofError, match="has opset 23, and the profile std allows at most 21"):
        lint(model_of("Attention", inputs=3, opset=23), "std")
    assert lint(model_of("Sigmoid", opset=21), "std") == {"Sigmoid": 1}


def test_a_constant_that_nothing_takes() -> None:
    model = model_of("Sigmoid")
    left = ir.Value(name="val_7", const_value=ir.tensor([1.0], name="val_7"))
    model.graph.initializers.add(left)
    with pytest.raises(ProofError, match="^val_7: no operator reads this constant"):
        lint(model, "std")
