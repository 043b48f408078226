"""Lowerings of the operators that matter for speed to ONNX nodes: one function for each, one table for each profile.

`ort` may use onnxruntime's own operators (domain com.microsoft); `std` uses only operators of the ONNX standard. All
other operators are lowered by PyTorch's exporter, such as GELU, which is one `Gelu` node of opset 20 in both profiles;
of custom ops that are not in the table, it lowers the bodies.
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
import torch
from onnx.defs import OpSchema
from onnxscript import opset20 as op
from onnxscript.values import Op, Opset

from pocketdiffusion.export.rewrites import chunked_attention, fused_attention, quick_gelu, tanh_gelu, tanh_sigmoid

Profile = Literal["ort", "std"]
OPSET = 20  # the oldest with Gelu; onnxruntime 1.18 (May 2024) and later run such files: see capabilities.py


def lowerings(profile: Profile) -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return the `custom_translation_table` of torch.onnx.export: {operator: the function that emits its nodes}."""
    attention, quick = fused_attention.MARKS["attention"], quick_gelu.MARKS["quick_gelu"]
    chunked = chunked_attention.MARKS["attention"]
    group, silu = torch.ops.aten.group_norm.default, torch.ops.aten.silu.default
    table: dict[Callable[..., Any], Callable[..., Any]] = {
        group: group_norm,
        tanh_gelu.MARKS["gelu"]: gelu_by_tanh,
        tanh_sigmoid.MARKS["silu"]: silu_by_tanh,
        tanh_sigmoid.MARKS["quick_gelu"]: quick_gelu_by_tanh,
    }
    if profile == "ort":
        attentions = {attention: ort_attention, chunked: ort_attention}
        return table | attentions | {quick: ort_quick_gelu, silu: ort_silu}
    return table | {attention: std_attention, quick: std_quick_gelu, silu: std_silu}


def group_norm(
    x: Any, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, cudnn_enabled: bool = True
) -> Any:
    """Emit GroupNorm as the InstanceNormalization of [batch, groups, rest].

    onnxruntime has no CPU kernel for GroupNormalization (opset 21) and expands it into many nodes when it loads, which
    run 1.7 to 2.1 times as long on the shapes of Stable Diffusion.
    """
    channels, *space = x.shape[1:]
    ones, zeros = _constant(np.ones(groups, np.float32)), _constant(np.zeros(groups, np.float32))
    normal = op.InstanceNormalization(_reshape(x, 0, groups, -1), ones, zeros, epsilon=eps)
    normal = _reshape(normal, 0, channels, *space)
    by_channel = (channels, *(1 for _ in space))
    if weight is not None:
        normal = op.Mul(normal, _reshape(weight, *by_channel))
    return normal if bias is None else op.Add(normal, _reshape(bias, *by_channel))


def ort_attention(
    query: Any, key: Any, value: Any, heads: int, scale: float, causal: bool, query_chunk: int = 0, key_chunk: int = 0
) -> Any:
    """Emit one MultiHeadAttention, which splits and joins the heads and computes the scores in chunks of its own."""
    return _MULTI_HEAD_ATTENTION(query, key, value, num_heads=heads, scale=scale, unidirectional=int(causal))


def std_attention(query: Any, key: Any, value: Any, heads: int, scale: float, causal: bool) -> Any:
    """Emit attention as matrix products and a softmax. The mask is -1e4, within float16, and makes a weight of 0."""
    q, k, v = (_reshape(t, 0, 0, heads, t.shape[-1] // heads) for t in (query, key, value))
    q, k, v = op.Transpose(q, perm=[0, 2, 1, 3]), op.Transpose(k, perm=[0, 2, 3, 1]), op.Transpose(v, perm=[0, 2, 1, 3])
    scores = op.MatMul(op.Mul(q, _constant(np.float32(scale))), k)
    if causal:
        hidden = np.triu(np.ones((query.shape[1], key.shape[1]), np.float32), 1)
        scores = op.Add(scores, _constant(-1e4 * hidden))
    mixed = op.MatMul(op.Softmax(scores, axis=-1), v)
    return _reshape(op.Transpose(mixed, perm=[0, 2, 1, 3]), 0, 0, value.shape[-1])


def ort_quick_gelu(x: Any) -> Any:
    return _QUICK_GELU(x, alpha=1.702)


def std_quick_gelu(x: Any) -> Any:
    return op.Mul(x, op.Sigmoid(op.Mul(x, _constant(np.float32(1.702)))))


def ort_silu(x: Any) -> Any:
    """Emit SiLU as QuickGELU with the factor 1, for which onnxruntime has a kernel."""
    return _QUICK_GELU(x, alpha=1.0)


def std_silu(x: Any) -> Any:
    return op.Mul(x, op.Sigmoid(x))


def silu_by_tanh(x: Any) -> Any:
    return _by_tanh(x, 1.0)


def quick_gelu_by_tanh(x: Any) -> Any:
    return _by_tanh(x, 1.702)


def _by_tanh(x: Any, factor: float) -> Any:
    """Emit x * sigmoid(factor * x) as x/2 * (1 + tanh(factor * x/2))."""
    half = op.Mul(x, _constant(np.float32(0.5)))
    inner = half if factor == 1 else op.Mul(x, _constant(np.float32(factor / 2)))
    return op.Mul(half, op.Add(op.Tanh(inner), _constant(np.float32(1))))


def gelu_by_tanh(x: Any) -> Any:
    return op.Gelu(x, approximate="tanh")


def _constant(values: Any) -> Any:
    return op.Constant(value=ir.tensor(np.asarray(values)))


def _reshape(x: Any, *shape: int) -> Any:
    """Emit a Reshape: 0 keeps the dimension, as an open batch requires; -1 infers it."""
    return op.Reshape(x, _constant(np.array(shape, np.int64)))


def _contrib(name: str, inputs: tuple[str, ...], **attributes: OpSchema.AttrType) -> Op:
    """Return onnxruntime's own operator `name`, for which onnx has no schema."""
    schema = OpSchema(
        name,
        "com.microsoft",
        1,
        inputs=[OpSchema.FormalParameter(each, "T") for each in inputs],
        outputs=[OpSchema.FormalParameter("output", "T")],
        type_constraints=[("T", ["tensor(float)"], "")],
        attributes=[OpSchema.Attribute(key, kind, "") for key, kind in attributes.items()],
    )
    return Op(Opset("com.microsoft", 1), name, schema)


_INT, _FLOAT = OpSchema.AttrType.INT, OpSchema.AttrType.FLOAT
_QUICK_GELU = _contrib("QuickGelu", ("X",), alpha=_FLOAT)
_MULTI_HEAD_ATTENTION = _contrib(
    "MultiHeadAttention", ("query", "key", "value"), num_heads=_INT, scale=_FLOAT, unidirectional=_INT
)
