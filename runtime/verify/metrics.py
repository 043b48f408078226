"""Measures of the difference between two tensors. Every comparison is written so that NaN fails.

PSNR is 20 log10(peak / rmse) with peak = max |reference| over all recorded cases of that output: never the candidate's,
which could raise it by being wrong. The verdict has the lowest PSNR of all cases."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf, log10

import numpy as np
from numpy.typing import NDArray

from pocketdiffusion.runtime.bundle.verdicts import NotFinite, Verdict
from pocketdiffusion.runtime.verify.check import Check
from pocketdiffusion.runtime.verify.finite import find_not_finite, largest


@dataclass(frozen=True)
class Comparison:
    """One recorded case: the reference and the candidate, of one shape, and the case's name."""

    label: str
    reference: NDArray[np.float32]
    candidate: NDArray[np.float32]


def psnr_db(reference: NDArray[np.float32], candidate: NDArray[np.float32], peak: float) -> float:
    """Return 20 log10(peak / rmse) in dB. inf if both are equal, -inf if a value is not finite or the shapes differ."""
    return _db(_rmse(reference, candidate), peak)


def _rmse(reference: NDArray[np.float32], candidate: NDArray[np.float32]) -> float:
    """Return the root mean square error, computed in float64; inf if the tensors cannot be compared."""
    if not _comparable(reference, candidate):
        return inf
    return float(np.sqrt(np.mean(np.square(reference.astype(np.float64) - candidate))))


def _db(rmse: float, peak: float) -> float:
    return inf if rmse == 0 else -inf if rmse == inf or peak == 0 else 20 * log10(peak / rmse)


@dataclass
class Tally:
    """The running totals over the cases of one output, which are added one by one: enough for its verdict, without
    arrays."""

    peak: float = 0.0
    rmse: list[float] = field(default_factory=list)
    relative: float = 0.0
    largest: float = 0.0
    place: tuple[int, ...] = ()
    label: str = ""
    finite: bool = True
    not_finite: NotFinite | None = None

    def add(self, case: Comparison) -> None:
        self.peak = max(self.peak, largest([case.reference]))
        self.rmse.append(_rmse(case.reference, case.candidate))
        if self.rmse[-1] == inf:
            self.finite = False
            if self.largest < inf:
                self.largest, self.label = inf, case.label
                self.not_finite = find_not_finite(case.label, case.reference, case.candidate)
                self.place = self.not_finite.place if self.not_finite is not None else ()
            return
        error = np.abs(case.reference.astype(np.float64) - case.candidate)
        norm = float(np.linalg.norm(case.reference))
        relative = float(np.linalg.norm(error)) / norm if norm else inf if error.any() else 0.0
        self.relative = max(self.relative, relative)
        if error.max() > self.largest:
            index = np.unravel_index(int(error.argmax()), error.shape)
            self.largest, self.label = float(error.max()), case.label
            self.place = tuple(int(i) for i in index)

    def verdict(self, subject: str, check: Check) -> Verdict:
        """Return the verdict of `check` on `subject` over the cases that were added."""
        case_db = tuple(_db(rmse, self.peak) for rmse in self.rmse)
        return Verdict(
            subject=subject,
            rung=check.rung,
            format=check.scope.format,
            storage=check.scope.storage,
            arithmetic=check.scope.arithmetic,
            floor_db=check.tolerance.of(subject),
            psnr_db=min(case_db, default=inf),
            peak=self.peak,
            max_abs=self.largest,
            worst=self.place,
            worst_case=self.label,
            relative=self.relative,
            finite=self.finite,
            cases=len(case_db),
            device=check.scope.device,
            case_db=case_db,
            not_finite=self.not_finite,
        )


def measure(subject: str, cases: Iterable[Comparison], check: Check) -> Verdict:
    """Return the verdict on one output over `cases`."""
    tally = Tally()
    for case in cases:
        tally.add(case)
    return tally.verdict(subject, check)


def _comparable(reference: NDArray[np.float32], candidate: NDArray[np.float32]) -> bool:
    """Return True if the shapes are equal and all values are finite. A reference that is not finite proves nothing
    either: no comparison with NaN would fail."""
    return reference.shape == candidate.shape and bool(np.isfinite(reference).all() and np.isfinite(candidate).all())


def image_psnr_db(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Return the PSNR (dB) of two 8-bit pictures with peak 255, computed in float64 (in uint8 the difference would wrap
    around)."""
    return psnr_db(a.astype(np.float32), b.astype(np.float32), 255.0)


def ssim(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Return the mean structural similarity of two pictures uint8 [H, W, 3]: Wang et al. 2004, Gaussian window of sigma
    1.5 and 11 pixels, K1 = 0.01, K2 = 0.03, averaged over channels and over all positions at which the window fits."""
    if a.shape != b.shape:
        raise ValueError(f"pictures of different shapes: {a.shape} and {b.shape}")
    window = np.exp(-np.square(np.arange(11) - 5) / (2 * 1.5**2))
    window /= window.sum()

    def blur(x: NDArray[np.float64]) -> NDArray[np.float64]:
        for axis in (0, 1):
            x = np.apply_along_axis(np.convolve, axis, x, window, "valid")
        return x

    x, y = a.astype(np.float64), b.astype(np.float64)
    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y, both = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2, blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    score = (2 * mean_x * mean_y + c1) * (2 * both + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return float(score.mean())
