"""Rule: as `fused_attention`, with another operator: attention as two batched products of rank 3.

The heads of one sample are the batch: [heads, n, d] times [heads, d, m], a softmax, and [heads, n, m] times [heads, m,
d]. No tensor has rank 4, so LiteRT needs no Reshape on either side of its BATCH_MATMUL.

The scale is split. Its power of two is applied to the queries, before the product, where it keeps the scores small and
is exact even if a converter folds it into the weights of a projection; the remaining factor, 0.5 to 1, is applied to
the scores. The complete scale, folded, would round weights that are stored as float16 a second time: 96 dB instead of
146 against the same weights, in one attention of 32 channels.

Fires on the modules that `fused_attention` fires on. Must NOT fire on others, and must not be used on graphs of more
than one sample, which is an error when the module is traced.

Source: scaled dot-product attention, https://arxiv.org/abs/1706.03762, section 3.2.
"""

from math import frexp

import torch
from torch import Tensor, nn

from pocketdiffusion.export.rewrites import fused_attention

_MASKED = -1e4  # representable in float16; after the softmax its weight is 0


def products(query: Tensor, key: Tensor, value: Tensor, heads: int, scale: float, causal: bool) -> Tensor:
    """Return softmax(scale * q k^T) v for each head, [1, n, channels]. Query [1, n, channels], key and value [1, m,
    channels].

    `causal` hides from each query the keys after its own position. Raise ValueError for more than one sample.
    """
    check_one_sample(query)
    q, k, v = (split_heads(t, heads) for t in (query, key, value))
    power, rest = split_scale(scale)
    scores = scores_of(q * power, k.transpose(1, 2), rest)
    if causal:
        scores = hide_later(scores)
    return join_heads(torch.bmm(torch.softmax(scores, dim=-1), v))


def check_one_sample(query: Tensor) -> None:
    """Raise ValueError if the batch of `query` is not 1."""
    if query.shape[0] != 1:
        raise ValueError(f"batched attention needs a batch of one sample, not {query.shape[0]}")


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Reshape [1, tokens, channels] to [heads, tokens, channels / heads]."""
    return x.reshape(x.shape[1], heads, -1).transpose(0, 1)


def join_heads(x: Tensor) -> Tensor:
    """Reshape [heads, tokens, channels / heads] to [1, tokens, channels]."""
    return x.transpose(0, 1).reshape(1, x.shape[1], -1)


def split_scale(scale: float) -> tuple[float, float]:
    """Split a positive scale into a power of two and a remaining factor above 0.5 and at most 1. Return both."""
    rest, exponent = frexp(scale)
    if rest == 0.5:  # a power of two, such as 1/8 for heads of 64 channels
        rest, exponent = 1.0, exponent - 1
    return 2.0**exponent, rest


def scores_of(q: Tensor, k: Tensor, rest: float) -> Tensor:
    """Return q k * `rest`, [heads, n, m], of q [heads, n, d] and k [heads, d, m]."""
    scores = torch.bmm(q, k)
    return scores if rest == 1 else scores * rest


def hide_later(scores: Tensor) -> Tensor:
    """Return the scores, [heads, n, m], with the keys after each query's own position hidden."""
    hidden = torch.ones(scores.shape[1:], device=scores.device, dtype=scores.dtype).triu(1)
    return scores + _MASKED * hidden


batched_attention = torch.library.custom_op("pocketdiffusion::batched_attention", products, mutates_args=())


@batched_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, heads: int, scale: float, causal: bool) -> Tensor:
    check_one_sample(query)
    return query.new_empty(*query.shape[:-1], value.shape[-1])


MARKS = {"attention": torch.ops.pocketdiffusion.batched_attention.default}
BODIES = {torch.ops.pocketdiffusion.batched_attention.default: products}
SCALE_RULES = {torch.ops.pocketdiffusion.batched_attention.default: "attention"}


kept = fused_attention.kept


def apply(module: nn.Module) -> int:
    """Rewrite `module` in place; names of parameters stay. Return the number of attentions changed."""
    return fused_attention.install(module, batched_attention)
