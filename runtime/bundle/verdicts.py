"""The verdict of the gate on one subject: in memory, where `passed` is derived, and as a record of proof.json."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import isclose
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pocketdiffusion.runtime.record import INFORMS, AnyFloat, BundlePath, Count, Record, Sha256

ProofKind = Literal["quick", "full"]  # how much of the original an export was compared with


class Kind(StrEnum):
    """What is compared with the original. The value is the `rung` of a verdict, except that a verdict on an
    artifact has its recipe's name as `rung`."""

    REWRITES = "rewrites"  # the rewritten module in torch
    CHANGED = "changed"  # the same with rewrites that change the model: their error
    ROUNDING = "rounding"  # in torch, weights rounded to float16: the error of that storage
    QUANTIZED = "quantized"  # in torch, with the weights that a lossy recipe stores
    SAME_WEIGHTS = "same weights"  # an artifact against torch with the same stored weights
    SAME_INTEGERS = "same integers"  # an artifact that computes in integers, each layer on the artifact's own inputs
    REPLAY = "replay"  # an artifact with every result rounded to float16
    ARTIFACT = "artifact"  # an artifact of a recipe, as users run it
    STAGE = "stage"  # a part of the pipeline that is not a graph
    PICTURES = "pictures"  # drawn free-running
    CONFORMANCE = "conformance"  # a conformance vector of the bundle
    CONFORMANCE_AFRESH = "conformance, asked again"  # a vector that the original libraries computed now
    COMPARED = "compared"  # two models or bundles: there is no floor


@dataclass(frozen=True)
class NotFinite:
    """The first value of `what` that is NaN or infinite. `sides` states on which side, and `place` is its index, on the
    reference's side if it is on both."""

    what: str
    sides: Literal["reference", "candidate", "both"]
    place: tuple[int, ...]

    def where(self, reference: str = "the original", candidate: str = "the artifact") -> str:
        """Return a phrase of the sides, by the given names, and the index."""
        named = {"reference": f"in {reference}", "candidate": f"in {candidate}"}
        named["both"] = f"{named['reference']} and {named['candidate']}"
        return f"{named[self.sides]}, first at {list(self.place)}"

    def describe(self, reference: str = "the original", candidate: str = "the artifact") -> str:
        """Return a sentence without a full stop."""
        return f"{self.what}: not finite {self.where(reference, candidate)}"


def largest_error_limit(peak: float, floor_db: float) -> float:
    """Return ten times the root mean square error that the floor allows, so that one wrong element cannot hide."""
    return float(10 * peak * 10 ** (-floor_db / 20))


@dataclass(frozen=True)
class Verdict:
    """The result of one check: one output of one graph (or one stage of the pipeline), over all its recorded cases.

    `rung` is the value of a `Kind`, or the recipe of the artifact that was judged. `format` is None if no artifact was.
    `device` is "host", or the stand-in that ran it. `worst` is the index of the largest absolute error, and
    `worst_case` names its case. `relative` is the norm of the error divided by the norm of the reference, in the worst
    case. `case_db` has the PSNR of each case, in the order of recording, and `not_finite` is set if a value of the
    reference or of the candidate is NaN or infinite: these two are not written to files."""

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
    case_db: tuple[float, ...] = field(default=(), compare=False)
    not_finite: NotFinite | None = field(default=None, compare=False)

    @property
    def kind(self) -> Kind:
        """Return the kind of the check."""
        return Kind(self.rung) if self.rung in list(Kind) else Kind.ARTIFACT

    @property
    def max_abs_limit(self) -> float:
        """Return the limit of the largest single error."""
        return largest_error_limit(self.peak, self.floor_db)

    @property
    def passed(self) -> bool:
        """Return True if floor and limit were kept, by finite values, in at least one case."""
        return self.cases > 0 and self.finite and self.psnr_db >= self.floor_db and self.max_abs <= self.max_abs_limit

    def describe(self) -> str:
        """Return one line for people: the subject, its PSNR and its floor."""
        where = f"{self.format} " if self.format else ""
        if self.device != "host":
            where = f"on {self.device} in {self.arithmetic}, {where}"
        if self.not_finite is not None:
            return f"{where}{self.subject} ({self.rung}) is not finite {self.not_finite.where()} in {self.worst_case}"
        if not self.finite:
            return (
                f"{where}{self.subject} ({self.rung}) has another shape than the original's output, first in "
                f"{self.worst_case}"
            )
        return (
            f"{where}{self.subject} ({self.rung}): PSNR {self.psnr_db:.1f} dB, at least {self.floor_db:.0f} dB "
            f"required; largest error {self.max_abs:.2g}, at most {self.max_abs_limit:.2g} allowed, at index "
            f"{list(self.worst)} in {self.worst_case}"
        )


def first_to_report(failed: Sequence[Verdict]) -> Verdict:
    """Return the failed verdict to report first: one on a part if there is any, because pictures suffer from any
    part."""
    return min(failed, key=lambda verdict: verdict.kind == Kind.PICTURES)


class VerdictRecord(Record):
    """What the gate found. The fields are those of Verdict; decibels, errors and limits may be infinite.

    A verdict of the rung "rounding" or "changed" has the format whose floors it changes. `passed` must agree with the
    other fields, else the file is refused.
    """

    subject: str = Field(
        description='a graph ("unet"), one of its outputs ("unet.out_sample"), a stage ("image"), or pictures'
    )
    rung: str = Field(description="what was compared with the original, from the rewrites to the shipped recipe")
    format: str | None = Field(description="the format that was judged; null where no artifact was, as for rewrites")
    storage: str = Field(description="the precision of the weights that were judged")
    arithmetic: str = Field(description="the precision that was computed in")
    floor_db: AnyFloat = Field(description="the PSNR in dB that had to be reached")
    psnr_db: AnyFloat = Field(description="the PSNR in dB of the worst case, its peak from the reference")
    peak: AnyFloat = Field(description="the largest absolute value of the reference")
    max_abs: AnyFloat = Field(description="the largest single error")
    max_abs_limit: AnyFloat = Field(description="what the largest single error may be")
    worst: tuple[Count, ...] = Field(description="where the largest single error is: its index in the array")
    worst_case: str = Field(description="which recorded call it is in")
    relative: AnyFloat = Field(description="the largest single error divided by the peak")
    finite: bool = Field(description="whether all values are finite")
    cases: Count = Field(description="how many calls were compared")
    passed: bool = Field(description="whether floor and limit were kept, by finite values, in at least one case")
    device: str = Field(
        default="host",
        description="where it ran: this machine, or a stand-in for a phone",
        examples=["host", "arm64", "gpu"],
    )

    @model_validator(mode="after")
    def _is_derived(self) -> Self:
        verdict = read_verdict(self)
        if not _same(self.max_abs_limit, verdict.max_abs_limit):
            raise ValueError(
                f"the verdict on {self.subject} says max_abs_limit={self.max_abs_limit:g}, its peak and its floor "
                f"allow {verdict.max_abs_limit:g}"
            )
        if self.passed != verdict.passed:
            raise ValueError(f"the verdict on {self.subject} says passed={self.passed}, its numbers say otherwise")
        return self


_DERIVED = ("max_abs_limit", "passed")


def record_verdict(verdict: Verdict) -> VerdictRecord:
    """Return the record of a verdict in proof.json: without its single cases and without `not_finite`."""
    names = VerdictRecord.model_fields.keys()
    return VerdictRecord(**{name: getattr(verdict, name) for name in names})


def read_verdict(record: VerdictRecord) -> Verdict:
    """Return the verdict of a record; `max_abs_limit` and `passed` are derived again."""
    fields: dict[str, Any] = {name: getattr(record, name) for name in VerdictRecord.model_fields}
    return Verdict(**{name: value for name, value in fields.items() if name not in _DERIVED})


def _same(one: float, other: float) -> bool:
    return one == other or (one != one and other != other) or isclose(one, other, rel_tol=1e-9)


class Worst(Record):
    """The verdict that is nearest to its floor, or furthest below it. A number that is not finite is null."""

    subject: str = Field(description="the graph, output, stage or picture that was judged")
    format: str | None = Field(description="the format that was judged; null where no artifact was")
    psnr_db: float | None = Field(description="its PSNR in dB; null where that is not finite")
    floor_db: float | None = Field(description="its floor in dB; null where that is not finite")
    margin_db: float | None = Field(description="PSNR less floor in dB; null where that is not finite")


class ProofSummary(Record):
    """How the bundle was judged, in short: it must be what the proof file says, where that is there."""

    file: BundlePath = Field(description="the proof file")
    sha256: Sha256 = Field(description="digest of the proof file, whether it is there or not")
    kind: Annotated[ProofKind, INFORMS] = Field(
        description="how much was judged: full, or quick, which has one picture of few steps"
    )
    passed: bool = Field(description="whether every verdict passed, and every output of every graph has one")
    worst: Worst | None = Field(description="the worst verdict; null where there is none")
