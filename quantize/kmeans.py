"""A palette: the few values that represent all values of a weight with the least squared error (k-means in one
dimension).

Lloyd's iteration (Lloyd 1982) on sorted values: each step assigns every value to the nearest entry, and moves each
entry to the mean of its values, by cumulative sums. The initial density of entries is proportional to the cube root of
the density of values, which is optimal for many entries (Panter and Dite 1951). The iteration ends when no entry moves.
"""

import numpy as np
from numpy.typing import NDArray

_STEPS = 60


def palette(values: NDArray[np.float32], entries: int) -> NDArray[np.float32]:
    """Return `entries` values, ascending, float32. If there are no more distinct values than entries, these are the
    distinct values, with the last one repeated."""
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
    """Return, for each value, the index of the nearest entry of `table` (ascending, at most 256 entries), uint8."""
    return np.searchsorted((table[1:] + table[:-1]) / 2, values).astype(np.uint8)
