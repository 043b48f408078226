"""A palette: few values that stand for all values of a weight with the least squared error (k-means of one dimension).

Lloyd's iteration (Lloyd 1982) on sorted values: each step cuts the line midway between neighbouring entries and moves
each entry to the mean of its piece, by sums that were taken once. It begins where entries are as dense as the cube root
of the values' density, which is best where there are many (Panter and Dite 1951), and ends when nothing moves.
"""

import numpy as np
from numpy.typing import NDArray

_STEPS = 60


def palette(values: NDArray[np.float32], entries: int) -> NDArray[np.float32]:
    """Return `entries` values, ascending, float32. Fewer distinct values than entries stand for themselves, the
    last one repeated."""
    ordered = np.sort(values.ravel()).astype(np.float64)
    distinct = np.unique(ordered)
    if len(distinct) <= entries:
        return np.concatenate([distinct, np.repeat(distinct[-1], entries - len(distinct))]).astype(np.float32)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    edges = np.quantile(ordered, np.linspace(0, 1, 8 * entries + 1))  # pieces of equal counts: density is 1 / width
    dense = np.concatenate([[0.0], np.cumsum(np.diff(edges) ** (2 / 3))])
    table = np.interp((np.arange(entries) + 0.5) / entries * dense[-1], dense, edges)
    for _ in range(_STEPS):
        cuts = np.concatenate([[0], np.searchsorted(ordered, (table[1:] + table[:-1]) / 2), [len(ordered)]])
        counts = np.diff(cuts)
        means = np.diff(sums[cuts]) / np.maximum(counts, 1)
        moved = np.sort(np.where(counts > 0, means, table))
        if np.array_equal(moved, table):
            break
        table = moved
    return np.asarray(table, np.float32)


def nearest(values: NDArray[np.float32], table: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the index of the entry of an ascending `table` of at most 256 that is nearest to each value."""
    return np.searchsorted((table[1:] + table[:-1]) / 2, values).astype(np.uint8)
