"""Islands: operators and weights that stay in higher precision, because float16 cannot hold their results or because
they are the most sensitive."""

from collections.abc import Iterable, Mapping, Sequence

from pocketdiffusion.quantize.float16_range import Range


def islands(operations: Iterable[tuple[Sequence[str], Sequence[str]]], ranges: Sequence[Range]) -> tuple[str, ...]:
    """Return the results to keep in float32, sorted. `operations` are pairs (results, inputs) of names.

    An operator that reads a result beyond float16 is kept in float32 like the operator that computes it; otherwise the
    result would be rounded in between.
    """
    beyond = {r.result for r in ranges if not r.fits}
    return tuple(sorted({r for results, uses in operations if beyond & {*results, *uses} for r in results}))


def most_sensitive(sensitivity: Mapping[str, float], share: float, most: float = 1.0) -> frozenset[str]:
    """Return the smallest set of weights that causes `share` (0..1) of the total sensitivity, most sensitive first,
    limited to the fraction `most` of all weights. Recipes keep these in higher precision."""
    ranked = sorted(sensitivity, key=lambda name: (-sensitivity[name], name))
    total, carried = sum(sensitivity.values()), 0.0
    kept: list[str] = []
    for name in ranked[: int(most * len(ranked))]:
        if carried >= share * total:
            break
        carried += sensitivity[name]
        kept.append(name)
    return frozenset(kept)
