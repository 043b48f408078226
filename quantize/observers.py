"""Calibration: the range that the integers of an activation stand for, from histograms that count samples one by one.

A histogram has a fixed number of bins, whatever it is given: where a value lies beyond them, neighbouring bins are
merged and the range doubles.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pocketdiffusion.quantize.qparams import ValueRange, affine

Method = Literal["minmax", "percentile", "mse"]
METHODS: tuple[Method, ...] = get_args(Method)
METHOD: Method = "minmax"
HEADROOM = {8: 1.2, 16: 2.0}  # by bits: room that "minmax" leaves for prompts that go further (benchmarks/RESULTS.md)
BINS = 2048
PERCENTILE = 99.99  # of the values, between the two ends that "percentile" cuts off
_CUTS = np.linspace(1, 0.2, 33)  # of the range, tried by "mse"


@dataclass
class Histogram:
    """Counts of values in `BINS` bins from -reach to reach, and the least and largest of all."""

    reach: float = 0.0
    counts: NDArray[np.float64] = field(default_factory=lambda: np.zeros(BINS))
    low: float = np.inf
    high: float = -np.inf

    def add(self, values: NDArray[np.float32]) -> None:
        """Count one sample of any shape. Raises ValueError where it is not finite."""
        low, high = float(values.min()), float(values.max())
        largest = max(-low, high)
        if not np.isfinite(largest):
            raise ValueError("an activation is not finite")
        self.low, self.high = min(self.low, low), max(self.high, high)
        if not largest:
            self.counts[BINS // 2] += values.size
            return
        if not self.reach:
            self.counts *= 0  # zeros so far, which lie in any bin
            self.reach = largest
        while largest > self.reach:
            merged = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.pad(merged, BINS // 4)
            self.reach *= 2
        self.counts += np.histogram(values, BINS, (-self.reach, self.reach))[0]

    @property
    def centres(self) -> NDArray[np.float64]:
        """Return the value that stands for each bin."""
        return np.asarray((np.arange(BINS) + 0.5) * (2 * self.reach / BINS) - self.reach, np.float64)


def choose_range(histogram: Histogram, method: Method, bits: int) -> ValueRange:
    """Return the range of signed integers of `bits` by one of `METHODS`: all values and some room; all but the
    outermost; or the range with the least squared error of rounding within and cutting off beyond."""
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
    """Return the error of all values, each at its bin's centre. Within the range rounding errs by step^2 / 12."""
    scale, _ = affine(value_range, bits)
    inside = np.clip(histogram.centres, value_range.low, value_range.high)
    cut = np.square(histogram.centres - inside)
    return float(histogram.counts @ np.where(cut > 0, cut, scale * scale / 12))
