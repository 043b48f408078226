"""Lowerings to MIL of the custom ops of the rewrite `split_einsum`, in the forms of Apple's own models for the Neural
Engine. Importing this file registers them with coremltools, for the process.

LayerNorm over axis 1 becomes one `layer_norm`, to which coremltools itself converts Apple's LayerNormANE (its pass
`fuse_layernorm_or_instancenorm`: "BC1S LayerNorm pattern as in ml-ane-transformers"). Apple's class adds the bias first
and then multiplies, for which it divides the checkpoint's bias by its weight. Here both keep their values, so that a
weight of 0 is no problem.
"""

from typing import Any

import numpy as np

from pocketdiffusion.export.backends.coreml.tools import ct

mb, register_torch_op = ct.converters.mil.Builder, ct.converters.mil.register_torch_op
PRODUCT = "nchw,nwhu->nchu"  # the one equation of rank 4 that MIL's einsum has


@register_torch_op(torch_alias=["pocketdiffusion::split_attention"])  # type: ignore[untyped-decorator]
def pocketdiffusion_split_attention(context: Any, node: Any) -> None:
    """Lower attention of query, key and value, each [batch, channels, 1, tokens]: for each head three slices, einsum,
    softmax over the keys, einsum."""
    query, key, value, heads, scale = (context[name] for name in node.inputs)
    turned = mb.mul(x=mb.transpose(x=key, perm=[0, 3, 2, 1]), y=np.float32(scale.val))
    mixed = []
    for q, k, v in zip(_cut(query, heads.val, 1), _cut(turned, heads.val, 3), _cut(value, heads.val, 1), strict=True):
        weights = mb.softmax(x=mb.einsum(values=(k, q), equation=PRODUCT), axis=1)
        mixed.append(mb.einsum(values=(v, weights), equation=PRODUCT))
    context.add(mb.concat(values=mixed, axis=1, name=node.name))


def _cut(x: Any, heads: int, axis: int) -> list[Any]:
    """Return the slice of `x` of each head along `axis`."""
    width = x.shape[axis] // heads
    parts = []
    for head in range(heads):
        begin, end = [0] * 4, list(x.shape)
        begin[axis], end[axis] = head * width, (head + 1) * width
        parts.append(mb.slice_by_index(x=x, begin=begin, end=end))
    return parts


@register_torch_op(torch_alias=["pocketdiffusion::channel_layer_norm"])  # type: ignore[untyped-decorator]
def pocketdiffusion_channel_layer_norm(context: Any, node: Any) -> None:
    """Lower LayerNorm over the channels of [batch, channels, 1, tokens] to MIL."""
    x, weight, bias, eps = (context[name] for name in node.inputs)
    normal = mb.layer_norm(x=x, axes=[1], gamma=weight, beta=bias, epsilon=np.float32(eps.val), name=node.name)
    context.add(normal)
