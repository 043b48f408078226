"""Calibration: the value range of an activation's integers, chosen from a histogram of its values.

A histogram has a fixed number of bins. If a value is outside of them, neighbouring bins are merged and the range
doubles.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pocketdiffusion.quantize.qparams import ValueRange, affine

Method = Literal["minmax", "percentile", "mse"]
METHODS: tuple[Method, ...] = get_args(Method)
METHOD: Method = "minmax"
HEADROOM = {
    8: 1.2,
    16: 2.0,
}  # by bits: factor by which "minmax" widens the range for other prompts (benchmarks/RESULTS.md)
BINS = 2048
PERCENTILE = 99.99  # of the values are kept by "percentile"; the rest is cut off at both ends
_CUTS = np.linspace(1, 0.2, 33)  # fractions of the range that "mse" tries


@dataclass
class Histogram:
    """Counts of values in `BINS` bins from -reach to reach, and the least and the largest value. Counting takes some
    30 times as long as finding these two; without `counting` there are no counts, and "minmax" is the only method."""

    counting: bool = True
    reach: float = 0.0
    counts: NDArray[np.float64] = field(default_factory=lambda: np.zeros(BINS))
    low: float = np.inf
    high: float = -np.inf

    def add(self, values: NDArray[np.float32]) -> None:
        """Add the values of one sample of any shape. Raises ValueError if one is not finite."""
        low, high = float(values.min()), float(values.max())
        largest = max(-low, high)
        if not np.isfinite(largest):
            raise ValueError("an activation is not finite")
        self.low, self.high = min(self.low, low), max(self.high, high)
        if not self.counting:
            return
        if not largest:
            self.counts[BINS // 2] += values.size
            return
        if not self.reach:
            self.counts *= 0  # only zeros so far, which belong to any bin
            self.reach = largest
        while largest > self.reach:
            merged = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.pad(merged, BINS // 4)
            self.reach *= 2
        self.counts += np.histogram(values, BINS, (-self.reach, self.reach))[0]

    @property
    def centres(self) -> NDArray[np.float64]:
        """Return the centre of each bin, float64 [BINS]."""
        return np.asarray((np.arange(BINS) + 0.5) * (2 * self.reach / BINS) - self.reach, np.float64)


def choose_range(histogram: Histogram, method: Method, bits: int) -> ValueRange:
    """Return the value range of signed integers of `bits` by a method: "minmax", all values and some room;
    "percentile", all but the outermost values; "mse", the range with the least squared error of rounding and
    clipping."""
    if method != "minmax" and not histogram.counting:
        raise ValueError(f"the method {method} needs counts")
    full = ValueRange(min(0.0, histogram.low), max(0.0, histogram.high))
    if method == "minmax" or not histogram.reach:
        return ValueRange(full.low * HEADROOM[bits], full.high * HEADROOM[bits])
    if method == "percentile":
        share = np.cumsum(histogram.counts) / histogram.counts.sum()
        beyond = (1 - PERCENTILE / 100) / 2
        low, high = (histogram.centres[np.searchsorted(share, at)] for at in (beyond, 1 - beyond))
        return ValueRange(max(full.low, min(0.0, float(low))), min(full.high, max(0.0, float(high))))
    tried = [ValueRange(full.low * a, full.high * b) for a in _ends(full.low) for b in _ends(full.high)]
    return min(tried, key=lambda each: _squared_error(histogram, each, bits))


def _ends(end: float) -> NDArray[np.float64]:
    return _CUTS if end else _CUTS[:1]


def _squared_error(histogram: Histogram, value_range: ValueRange, bits: int) -> float:
    """Return the sum of squared errors, with each value at its bin's centre. Rounding within the range has the error
    step^2 / 12."""
    scale, _ = affine(value_range, bits)
    inside = np.clip(histogram.centres, value_range.low, value_range.high)
    cut = np.square(histogram.centres - inside)
    return float(histogram.counts @ np.where(cut > 0, cut, scale * scale / 12))
