"""What stays more precise than the rest: operators whose results float16 cannot hold, the most sensitive weights."""

from collections.abc import Iterable, Mapping, Sequence

from pocketdiffusion.quantize.float16_range import Range


def islands(operations: Iterable[tuple[Sequence[str], Sequence[str]]], ranges: Sequence[Range]) -> tuple[str, ...]:
    """Return the results to keep in float32, sorted. `operations` are (results, what they are computed of), by name.

    An operator that takes a result beyond float16 is an island like the one that gives it, or that would be rounded on
    the way between the two.
    """
    beyond = {r.result for r in ranges if not r.fits}
    return tuple(sorted({r for results, uses in operations if beyond & {*results, *uses} for r in results}))


def costly(sensitivity: Mapping[str, float], share: float, most: float = 1.0) -> frozenset[str]:
    """Return the fewest weights that carry `share` of the sum of all sensitivities, the most sensitive first, and no
    more than `most` of all weights: those that a recipe keeps more precise."""
    ranked = sorted(sensitivity, key=lambda name: (-sensitivity[name], name))
    total, carried = sum(sensitivity.values()), 0.0
    kept: list[str] = []
    for name in ranked[: int(most * len(ranked))]:
        if carried >= share * total:
            break
        carried += sensitivity[name]
        kept.append(name)
    return frozenset(kept)
