"""Rule: as `batched_attention`, in chunks of queries and keys: only the scores of one pair of chunks exist at a time.

Memory grows with the number of tokens, not with its square, and the result is exact: each chunk of keys has its own
mixture, maximum and normaliser (the sum of its weights), and two are merged with the weights that they would have under
the greater maximum. The paper divides by the normaliser once, at the end. Here each mixture is divided at once, as the
softmax of its chunk: a sum of 4096 values above 16 would overflow float16, a mean does not. The normaliser is then 1 /
(the largest weight), as the largest score has the weight exp(0) / normaliser.

Shapes are static, so the chunks are unrolled. If one chunk is enough, the operators are `batched_attention`'s. A causal
mask adds no operators between chunks: keys are also cut where a chunk of queries begins, so that a chunk of keys is
before the queries, is skipped, or has the diagonal, on which every query has a key.

Fires on the modules that `fused_attention` fires on. Must NOT fire on others, and must not be used on graphs of more
than one sample, which is an error when the module is traced.

Source: Rabe and Staats, Self-attention Does Not Need O(n^2) Memory, https://arxiv.org/abs/2112.05682.
"""

from collections.abc import Iterator
from functools import cache, reduce
from itertools import chain

import torch
from torch import Tensor, nn

from pocketdiffusion.export.rewrites import fused_attention
from pocketdiffusion.export.rewrites.batched_attention import (
    check_one_sample,
    hide_later,
    join_heads,
    products,
    scores_of,
    split_heads,
    split_scale,
)

# Measured on 4096 tokens in 8 heads of 40 channels, against one chunk, which needs 570 MB in LiteRT and 563 in
# onnxruntime: 117 and 99 MB for 1.05 and 0.97 times the processor time. 256 queries: 84 and 64 MB, 1.10 and 0.99
# times, and twice the operators. 512 queries with 2048 keys save no more memory and need 1.5 and 1.2 times the time.
QUERY_CHUNK, KEY_CHUNK = 512, 4096

Chunk = tuple[int, int]  # of tokens: the first, and the one after the last
Part = tuple[Tensor, Tensor, Tensor]  # mixture [heads, n, d]; maximum and normaliser, both [heads, n, 1]


def in_chunks(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: int,
    scale: float,
    causal: bool,
    query_chunk: int = QUERY_CHUNK,
    key_chunk: int = KEY_CHUNK,
) -> Tensor:
    """Return `batched_attention.products`, computed with at most `query_chunk` queries and `key_chunk` keys at a time.

    Raise ValueError for a chunk of less than one token, and for more than one sample.
    """
    check_one_sample(query)
    if min(query_chunk, key_chunk) < 1:
        raise ValueError(f"chunks of {query_chunk} queries and {key_chunk} keys: each must have at least 1")
    queries, keys = query.shape[1], key.shape[1]
    if queries <= query_chunk and keys <= key_chunk:
        return products(query, key, value, heads, scale, causal)
    power, rest = split_scale(scale)

    @cache  # chunks of queries share their chunks of keys
    def keys_and_values(chunk: Chunk) -> tuple[Tensor, Tensor]:
        k, v = (split_heads(t[:, slice(*chunk)], heads) for t in (key, value))
        return k.transpose(1, 2), v

    def attend(own: Chunk) -> Tensor:
        q = split_heads(query[:, slice(*own)], heads) * power

        def scored(chunk: Chunk) -> tuple[Tensor, Tensor]:
            k, v = keys_and_values(chunk)
            scores = scores_of(q, k, rest)
            return (hide_later(scores) if causal and chunk[0] == own[0] else scores), v

        seen = list(_seen(own, keys, key_chunk) if causal else _chunks(keys, key_chunk))
        if len(seen) == 1:
            scores, v = scored(seen[0])
            return join_heads(torch.bmm(torch.softmax(scores, dim=-1), v))
        mixed, _, _ = reduce(_merged, (_part(*scored(chunk)) for chunk in seen))
        return join_heads(mixed)

    rows = min(query_chunk, key_chunk) if causal else query_chunk
    return torch.cat([attend(own) for own in _chunks(queries, rows)], dim=1)


def _chunks(tokens: int, size: int) -> Iterator[Chunk]:
    return ((first, min(first + size, tokens)) for first in range(0, tokens, size))


def _seen(own: Chunk, keys: int, size: int) -> Iterator[Chunk]:
    """Return the chunks of keys that queries at the positions `own` see: those before them, and those at their own
    positions."""
    start, stop = own
    return chain(_chunks(min(start, keys), size), [(start, min(stop, keys))] if start < keys else [])


def _part(scores: Tensor, v: Tensor) -> Part:
    """Return mixture, maximum and normaliser of one chunk of keys. Scores: [heads, n, m], v: [heads, m, d].

    The normaliser is a division, not a reciprocal: coremltools 9.0 lowers that to `inverse`, which adds 1e-4 to its
    divisor.
    """
    weights = torch.softmax(scores, dim=-1)
    largest = weights.amax(-1, keepdim=True)
    one = torch.ones(1, 1, 1, dtype=largest.dtype, device=largest.device)
    return torch.bmm(weights, v), scores.amax(-1, keepdim=True), one / largest


def _merged(one: Part, other: Part) -> Part:
    maximum = torch.maximum(one[1], other[1])
    left, right = (normaliser * torch.exp(peak - maximum) for _, peak, normaliser in (one, other))
    total = left + right
    return one[0] * (left / total) + other[0] * (right / total), maximum, total


chunked_attention = torch.library.custom_op("pocketdiffusion::chunked_attention", in_chunks, mutates_args=())


@chunked_attention.register_fake
def _(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: int,
    scale: float,
    causal: bool,
    query_chunk: int = QUERY_CHUNK,
    key_chunk: int = KEY_CHUNK,
) -> Tensor:
    check_one_sample(query)
    return query.new_empty(*query.shape[:-1], value.shape[-1])


MARKS = {"attention": torch.ops.pocketdiffusion.chunked_attention.default}
BODIES = {torch.ops.pocketdiffusion.chunked_attention.default: in_chunks}
SCALE_RULES = {torch.ops.pocketdiffusion.chunked_attention.default: "attention"}


def apply(module: nn.Module) -> int:
    """Rewrite `module` in place; names of parameters stay. Return the number of attentions changed."""
    return fused_attention.install(module, chunked_attention)
