"""How equal two tensors are, and how equal they must be. Every comparison is written so that NaN fails.

PSNR is 20 log10(peak / rmse) with peak = max |reference| over all recorded cases of that output: never taken from the
candidate, which could raise it by being wrong. The case with the worst PSNR is the one that is judged.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf, log10

import numpy as np
from numpy.typing import NDArray

from pocketdiffusion.runtime.verify.finite import NotFinite, find_not_finite, largest

FLOORS_DB = {
    ("float32", "float32"): 105.0,
    ("float16", "float32"): 65.0,
    ("float16", "float16"): 58.0,
    ("float32", "float16"): 58.0,  # on a stand-in that computes in float16 whatever the file stores
}
MARGIN_DB = 6.0  # other prompts, other steps
# A GPU may round exp, sqrt and division more loosely than IEEE 754: the built-in UNet has 99.8 dB there, 134 on a CPU.
CEILINGS_DB = {"gpu": 90.0}


def floor_db(
    storage: str,
    arithmetic: str,
    rounding_db: float | None = None,
    changed_db: float | None = None,
    device: str = "host",
    recipe_db: float | None = None,
) -> float:
    """The least PSNR, teacher-forced, of a graph with weights in `storage`, run in `arithmetic`.

    65 dB for storage in float16 suits the worst model. Faults hide between that and what the storage of this model
    costs: `rounding_db`, infinite where its weights were float16 from the beginning. Where it is known and arithmetic
    is float32, the artifact may err twice as much, and no more; never less than float32 itself may, nor than `device`.

    `changed_db` is there where a rewrite changes the model, and says how far that alone takes it from the original, in
    torch. The artifact then may be twice as far, where its precision allows less.

    `recipe_db` is the floor that a lossy recipe states, in the place of all that precision asks for.
    """
    floor = FLOORS_DB[storage, arithmetic] if recipe_db is None else recipe_db
    if changed_db is not None:
        floor = min(floor, changed_db - MARGIN_DB)
    if rounding_db is not None and arithmetic == "float32" and recipe_db is None:
        floor = max(floor, min(rounding_db - MARGIN_DB, FLOORS_DB["float32", "float32"]))
    return min(floor, CEILINGS_DB.get(device, inf))


@dataclass(frozen=True)
class ParityReport:
    """One output of one graph (or one stage of the pipeline), over all its recorded cases.

    `format` is None where no artifact was judged. `device` is "host", or the stand-in that ran it. `worst` is the index
    of the largest absolute error and `worst_case` names the case it lies in. `relative` is the norm of the error over
    that of the reference, in the worst case. `case_db` has the PSNR of each case, in the order of recording.
    `not_finite` is there where a value of the reference or of the candidate is NaN or infinite.
    """

    subject: str
    rung: str
    format: str | None
    storage: str
    arithmetic: str
    floor_db: float
    psnr_db: float
    peak: float
    max_abs: float
    worst: tuple[int, ...]
    worst_case: str
    relative: float
    finite: bool
    cases: int
    device: str = "host"
    case_db: tuple[float, ...] = ()
    not_finite: NotFinite | None = None

    @property
    def max_abs_limit(self) -> float:
        """Ten times the error that the floor allows on average, so that one wrong element cannot hide."""
        return 10 * self.peak * 10 ** (-self.floor_db / 20)

    @property
    def passed(self) -> bool:
        return self.cases > 0 and self.finite and self.psnr_db >= self.floor_db and self.max_abs <= self.max_abs_limit

    def describe(self) -> str:
        """One line for a person: what, where, how far from the floor."""
        where = f"{self.format} " if self.format else ""
        if self.device != "host":
            where = f"on {self.device} in {self.arithmetic}, {where}"
        if self.not_finite is not None:
            return f"{where}{self.subject} ({self.rung}) is not finite {self.not_finite.where()} in {self.worst_case}"
        if not self.finite:
            return f"{where}{self.subject} ({self.rung}) is of another shape, first in {self.worst_case}"
        return (
            f"{where}{self.subject} ({self.rung}): {self.psnr_db:.1f} dB, floor {self.floor_db:.0f} dB; largest error "
            f"{self.max_abs:.2g}, limit {self.max_abs_limit:.2g}, at {list(self.worst)} in {self.worst_case}"
        )


def blame(failed: Sequence[ParityReport]) -> ParityReport:
    """Of verdicts that failed, the one to tell first: on a part, where one is, since pictures suffer of any part."""
    return min(failed, key=lambda report: report.rung == "pictures")


@dataclass(frozen=True)
class Comparison:
    """One recorded case: the reference and the candidate, of one shape, and the case's name."""

    label: str
    reference: NDArray[np.float32]
    candidate: NDArray[np.float32]


def psnr_db(reference: NDArray[np.float32], candidate: NDArray[np.float32], peak: float) -> float:
    """inf where equal, -inf where either is not finite or the shapes differ."""
    return _db(_rmse(reference, candidate), peak)


def _rmse(reference: NDArray[np.float32], candidate: NDArray[np.float32]) -> float:
    """inf where the two cannot be compared."""
    if not _comparable(reference, candidate):
        return inf
    return float(np.sqrt(np.mean(np.square(reference.astype(np.float64) - candidate))))


def _db(rmse: float, peak: float) -> float:
    return inf if rmse == 0 else -inf if rmse == inf or peak == 0 else 20 * log10(peak / rmse)


@dataclass
class Tally:
    """What is kept of the cases of one output, which are added one by one: all that its report needs, and no array."""

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

    def report(
        self,
        subject: str,
        *,
        rung: str,
        floor: float,
        format: str | None = None,
        storage: str = "float32",
        arithmetic: str = "float32",
        device: str = "host",
    ) -> ParityReport:
        case_db = tuple(_db(rmse, self.peak) for rmse in self.rmse)
        return ParityReport(
            subject=subject,
            rung=rung,
            format=format,
            storage=storage,
            arithmetic=arithmetic,
            floor_db=floor,
            psnr_db=min(case_db, default=inf),
            peak=self.peak,
            max_abs=self.largest,
            worst=self.place,
            worst_case=self.label,
            relative=self.relative,
            finite=self.finite,
            cases=len(case_db),
            device=device,
            case_db=case_db,
            not_finite=self.not_finite,
        )


def measure(
    subject: str,
    cases: Iterable[Comparison],
    *,
    rung: str,
    floor: float,
    format: str | None = None,
    storage: str = "float32",
    arithmetic: str = "float32",
    device: str = "host",
) -> ParityReport:
    """The report of one output over `cases`."""
    tally = Tally()
    for case in cases:
        tally.add(case)
    return tally.report(
        subject, rung=rung, floor=floor, format=format, storage=storage, arithmetic=arithmetic, device=device
    )


def _comparable(reference: NDArray[np.float32], candidate: NDArray[np.float32]) -> bool:
    """A reference that is not finite proves nothing either: NaN would win no comparison and so hide."""
    return reference.shape == candidate.shape and bool(np.isfinite(reference).all() and np.isfinite(candidate).all())


def image_psnr_db(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Between two 8-bit pictures, peak 255, computed in float64 (in uint8 the difference would wrap around)."""
    return psnr_db(a.astype(np.float32), b.astype(np.float32), 255.0)


def ssim(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Mean structural similarity of two pictures uint8 [H, W, 3]: Wang et al. 2004, Gaussian window of sigma 1.5 cut at
    11 pixels, K1 = 0.01, K2 = 0.03, averaged over channels and over the places where the whole window fits."""
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
