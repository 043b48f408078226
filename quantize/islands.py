"""The operators that stay float32 in a graph of float16: those that give or take what float16 cannot hold."""

from collections.abc import Iterable, Sequence

from pocketdiffusion.quantize.ranges import Range


def islands(operations: Iterable[tuple[Sequence[str], Sequence[str]]], ranges: Sequence[Range]) -> tuple[str, ...]:
    """The results to keep in float32, sorted. `operations` are (results, what they are computed of), by name.

    An operator that takes a result beyond float16 is an island like the one that gives it, or that would be rounded on
    the way between the two.
    """
    beyond = {r.result for r in ranges if not r.fits}
    return tuple(sorted({r for results, uses in operations if beyond & {*results, *uses} for r in results}))
