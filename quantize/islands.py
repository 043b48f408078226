"""What stays more precise than the rest: operators with results that float16 cannot hold, weights that cost most."""

from collections.abc import Iterable, Mapping, Sequence

from pocketdiffusion.quantize.float16_range import Range


def islands(operations: Iterable[tuple[Sequence[str], Sequence[str]]], ranges: Sequence[Range]) -> tuple[str, ...]:
    """The results to keep in float32, sorted. `operations` are (results, what they are computed of), by name.

    An operator that takes a result beyond float16 is an island like the one that gives it, or that would be rounded on
    the way between the two.
    """
    beyond = {r.result for r in ranges if not r.fits}
    return tuple(sorted({r for results, uses in operations if beyond & {*results, *uses} for r in results}))


def costly(damage: Mapping[str, float], share: float, most: float = 1.0) -> frozenset[str]:
    """The fewest weights that carry `share` of all the damage, the worst first, and no more than `most` of all weights:
    what a recipe keeps more precise."""
    ranked = sorted(damage, key=lambda name: (-damage[name], name))
    total, carried = sum(damage.values()), 0.0
    kept: list[str] = []
    for name in ranked[: int(most * len(ranked))]:
        if carried >= share * total:
            break
        carried += damage[name]
        kept.append(name)
    return frozenset(kept)
