"""A palette: the few values that stand for all those of a weight with the least squared error (k-means of
one dimension).

Lloyd's iteration (Lloyd 1982) on sorted values: each step cuts the line midway between neighbouring entries and moves
each entry to the mean of its piece, by sums that were taken once. It begins at quantiles, and ends when nothing moves.
"""

import numpy as np
from numpy.typing import NDArray

_STEPS = 60


def palette(values: NDArray[np.float32], entries: int) -> NDArray[np.float32]:
    """`entries` values, ascending, float32. Fewer distinct values than entries stand for themselves, the last one
    repeated."""
    ordered = np.sort(values.ravel()).astype(np.float64)
    distinct = np.unique(ordered)
    if len(distinct) <= entries:
        return np.concatenate([distinct, np.repeat(distinct[-1], entries - len(distinct))]).astype(np.float32)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    table = np.quantile(ordered, (np.arange(entries) + 0.5) / entries)
    # quantiles alone leave the tails, where k-means wants some entries: begin between them and an even grid
    table = (table + np.linspace(ordered[0], ordered[-1], entries + 2)[1:-1]) / 2
    for _ in range(_STEPS):
        cuts = np.concatenate([[0], np.searchsorted(ordered, (table[1:] + table[:-1]) / 2), [len(ordered)]])
        counts = np.diff(cuts)
        means = np.diff(sums[cuts]) / np.maximum(counts, 1)
        moved = np.sort(np.where(counts > 0, means, table))
        if np.array_equal(moved, table):
            break
        table = moved
    return table.astype(np.float32)


def nearest(values: NDArray[np.float32], table: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The index of the entry of an ascending `table` of at most 256 that is nearest to each value."""
    return np.searchsorted((table[1:] + table[:-1]) / 2, values).astype(np.uint8)
