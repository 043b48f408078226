"""Lowerings to MIL of our rewrites' custom ops, and of an operator of torch that coremltools translates wrongly.

Importing this file registers them with coremltools, in the running process.
"""

from typing import Any

import numpy as np

from pocketdiffusion.export.backends.coreml.tools import ct
from pocketdiffusion.export.rewrites import fused_attention, quick_gelu, tanh_gelu, tanh_sigmoid

mb, register_torch_op = ct.converters.mil.Builder, ct.converters.mil.register_torch_op
# The custom ops that are lowered here; of other ones the bodies are traced.
LOWERED = (
    fused_attention.MARKS["attention"],
    quick_gelu.MARKS["quick_gelu"],
    tanh_gelu.MARKS["gelu"],
    *tanh_sigmoid.MARKS.values(),
)
HIDDEN = -1e4  # added to a masked score: within float16, and low enough that its softmax weight is 0


@register_torch_op(torch_alias=["pocketdiffusion::attention"])  # type: ignore[untyped-decorator]
def pocketdiffusion_attention(context: Any, node: Any) -> None:
    """Lower attention of query, key and value, each [batch, tokens, channels], with heads split and joined, to MIL.

    From iOS 18 on it becomes one `scaled_dot_product_attention`, whose scale is always 1/sqrt(channels of a head): a
    factor for another scale is multiplied into the query. Before iOS 18: mul, matmul, softmax, matmul.
    """
    query, key, value, heads, scale, causal = (context[name] for name in node.inputs)
    q, k, v = (_split_heads(x, heads.val) for x in (query, key, value))
    mask = np.triu(np.full((query.shape[1], key.shape[1]), HIDDEN, np.float32), 1) if causal.val else None
    if ct.converters.mil.mil.block.is_current_opset_version_compatible_with(ct.target.iOS18):
        factor = scale.val * q.shape[-1] ** 0.5
        q = q if np.isclose(factor, 1, rtol=1e-6) else mb.mul(x=q, y=np.float32(factor))
        masked = {} if mask is None else {"attn_mask": mask}
        mixed = mb.scaled_dot_product_attention(query=q, key=k, value=v, **masked)
    else:
        scores = mb.matmul(x=mb.mul(x=q, y=np.float32(scale.val)), y=k, transpose_y=True)
        scores = scores if mask is None else mb.add(x=scores, y=mask)
        mixed = mb.matmul(x=mb.softmax(x=scores, axis=-1), y=v)
    joined = mb.transpose(x=mixed, perm=[0, 2, 1, 3])
    context.add(mb.reshape(x=joined, shape=[*query.shape[:2], value.shape[-1]], name=node.name))


def _split_heads(x: Any, heads: int) -> Any:
    """Return `x` [batch, tokens, channels] as [batch, heads, tokens, channels / heads]."""
    batch, tokens, channels = x.shape
    return mb.transpose(x=mb.reshape(x=x, shape=[batch, tokens, heads, channels // heads]), perm=[0, 2, 1, 3])


@register_torch_op(torch_alias=["pocketdiffusion::quick_gelu"])  # type: ignore[untyped-decorator]
def pocketdiffusion_quick_gelu(context: Any, node: Any) -> None:
    """Lower QuickGELU, x * sigmoid(1.702 x), to MIL's `gelu`, which has this mode from iOS 15 on."""
    context.add(mb.gelu(x=context[node.inputs[0]], mode="SIGMOID_APPROXIMATION", name=node.name))


@register_torch_op(torch_alias=["pocketdiffusion::tanh_silu"])  # type: ignore[untyped-decorator]
def pocketdiffusion_tanh_silu(context: Any, node: Any) -> None:
    """Lower SiLU, written as x/2 * (1 + tanh(x/2)), to MIL."""
    half = mb.mul(x=context[node.inputs[0]], y=np.float32(0.5))
    context.add(mb.mul(x=half, y=mb.add(x=mb.tanh(x=half), y=np.float32(1)), name=node.name))


@register_torch_op(torch_alias=["pocketdiffusion::tanh_quick_gelu"])  # type: ignore[untyped-decorator]
def pocketdiffusion_tanh_quick_gelu(context: Any, node: Any) -> None:
    """Lower QuickGELU, written as x/2 * (1 + tanh(0.851 x)), to MIL."""
    x = context[node.inputs[0]]
    raised = mb.add(x=mb.tanh(x=mb.mul(x=x, y=np.float32(0.851))), y=np.float32(1))
    context.add(mb.mul(x=mb.mul(x=x, y=np.float32(0.5)), y=raised, name=node.name))


@register_torch_op(torch_alias=["pocketdiffusion::tanh_gelu"])  # type: ignore[untyped-decorator]
def pocketdiffusion_tanh_gelu(context: Any, node: Any) -> None:
    """Lower GELU in its tanh approximation to MIL's `gelu`, which has this mode from iOS 15 on."""
    context.add(mb.gelu(x=context[node.inputs[0]], mode="TANH_APPROXIMATION", name=node.name))


@register_torch_op(torch_alias=["int"], override=True)  # type: ignore[untyped-decorator]
def _int(context: Any, node: Any) -> None:
    """Lower torch's int() of a tensor of one element. coremltools 9.0 calls int() on an array, an error since numpy
    2.4."""
    x = context[node.inputs[0]]
    if x.val is not None:
        context.add(mb.const(val=int(np.asarray(x.val).item()), name=node.name))
    else:
        scalar = mb.squeeze(x=x) if x.shape else x
        context.add(mb.cast(x=scalar, dtype="int32", name=node.name))
