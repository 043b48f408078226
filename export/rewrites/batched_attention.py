"""Rule: as `fused_attention`, around another operator: attention as two batched products of rank 3.

The heads of one sample are the batch: [heads, n, d] times [heads, d, m], a softmax, and [heads, n, m] times
[heads, m, d]. Nothing has rank 4, so LiteRT needs no Reshape on either side of its BATCH_MATMUL.

The scale is split. Its power of two is applied to the queries, before the product, where it keeps the scores small and
is exact even if a converter folds it into the weights of a projection; the rest, 0.5 to 1, is applied to the scores.
Folded, the whole scale would round weights that are stored as float16 a second time: 96 dB in place of 146 against
the same weights, in one attention of 32 channels.

Fires on the modules that `fused_attention` fires on. Must NOT fire where that does not, nor be used on graphs of more
than one sample, which is an error when the module is traced.

Source: scaled dot-product attention, https://arxiv.org/abs/1706.03762, section 3.2.
"""

from math import frexp

import torch
from torch import Tensor, nn

from pocketdiffusion.export.rewrites import fused_attention

_MASKED = -1e4  # float16 holds it, and its weight is 0


def products(query: Tensor, key: Tensor, value: Tensor, heads: int, scale: float, causal: bool) -> Tensor:
    """softmax(scale * q k^T) v for each head. Query [1, n, channels], key and value [1, m, channels].

    Returns [1, n, channels]. `causal` hides from each query the keys after its own position. Raises ValueError for more
    than one sample.
    """
    if query.shape[0] != 1:
        raise ValueError(f"batched attention takes one sample, not {query.shape[0]}")
    q, k, v = (t.reshape(t.shape[1], heads, -1).transpose(0, 1) for t in (query, key, value))
    rest, exponent = frexp(scale)
    if rest == 0.5:  # a power of two, such as 1/8 for heads of 64 channels
        rest, exponent = 1.0, exponent - 1
    scores = torch.bmm(q * 2.0**exponent, k.transpose(1, 2))
    if rest != 1:
        scores = scores * rest
    if causal:
        hidden = torch.ones(query.shape[1], key.shape[1], device=query.device).triu(1)
        scores = scores + _MASKED * hidden
    mixed = torch.bmm(torch.softmax(scores, dim=-1), v)
    return mixed.transpose(0, 1).reshape(1, query.shape[1], -1)


batched_attention = torch.library.custom_op("pocketdiffusion::batched_attention", products, mutates_args=())


@batched_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, heads: int, scale: float, causal: bool) -> Tensor:
    if query.shape[0] != 1:
        raise ValueError(f"batched attention takes one sample, not {query.shape[0]}")
    return query.new_empty(*query.shape[:-1], value.shape[-1])


MARKS = {"attention": torch.ops.pocketdiffusion.batched_attention.default}
BODIES = {torch.ops.pocketdiffusion.batched_attention.default: products}


kept = fused_attention.kept


def apply(module: nn.Module) -> int:
    """Rewrites `module` in place; names of parameters stay. Returns the number of attentions changed."""
    return fused_attention.install(module, batched_attention)
