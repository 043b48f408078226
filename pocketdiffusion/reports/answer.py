"""The first sentence of a report: whether the bundle is proven, for which phone, and with which PSNR."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal

from pocketdiffusion.compare import Compared
from pocketdiffusion.runtime.bundle.manifest import Graph, UnsealedManifest
from pocketdiffusion.runtime.bundle.verdicts import Verdict, first_to_report
from pocketdiffusion.runtime.verify.controls import medians
from pocketdiffusion.runtime.verify.skipped import NotRun

Controls = Sequence[Mapping[str, float]]
MEDIAN, MINIMUM = "pictures.median", "pictures.minimum"  # subjects of the verdicts on pictures


@dataclass(frozen=True)
class Answer:
    """The first sentence of a report. `verdict`: "Proven for" a phone or not, "" for a comparison without bounds.
    `detail`: the PSNR, compared with a control. `state` decides the colour: "partly" if a part could not be run
    here."""

    verdict: str
    detail: str
    state: Literal["passed", "partly", "failed", "unknown"]

    @property
    def sentence(self) -> str:
        """Return the answer as one sentence."""
        return f"{self.verdict}: {self.detail}." if self.verdict else f"{self.detail}."


@dataclass(frozen=True)
class Pictures:
    """PSNR (dB) of `count` pictures in `format`: the median and the minimum."""

    format: str
    median_db: float
    lowest_db: float
    count: int


def answer_export(
    manifest: UnsealedManifest, verdicts: Sequence[Verdict], controls: Controls, not_run: Sequence[NotRun] = ()
) -> Answer:
    """Return the answer for a bundle. `controls`: for each prompt, the PSNR (dB) of the original's control pictures."""
    phone, failed = manifest.target.title, [verdict for verdict in verdicts if not verdict.passed]
    if not verdicts:
        return Answer("Not judged", f"no artifact for {phone} was compared with {manifest.model.name}", "unknown")
    near = _nearest_worst(manifest.model.name, verdicts, controls)
    if failed:
        count = f"{len(failed)} of {len(verdicts)} checks failed, first {describe_failure(first_to_report(failed))}"
        return Answer(f"Not proven for {phone}", f"{count}; {near}", "failed")
    quick = " of a quick proof" if manifest.proof_kind == "quick" else ""
    checks = f"all {len(verdicts)} checks{quick} passed"
    lossy = _lossy_recipes(graph for graphs in manifest.graphs.values() for graph in graphs.values())
    limits = f" within the floors of the lossy recipe {' and '.join(lossy)}" if lossy else ""
    if not_run:
        units = " and ".join(dict.fromkeys(f"{each.device} ({each.format} {each.subject})" for each in not_run))
        return Answer(f"Proven for {phone}{limits}, but not run on {units}", f"{near}; {checks}", "partly")
    return Answer(f"Proven for {phone}{limits}", f"{near}; {checks}", "passed")


def answer_comparison(compared: Compared, broken: str = "") -> Answer:
    """Return the answer for a comparison. `broken`: the bound that does not hold, "" if none."""
    a, b = compared.sides
    difference = compared.difference
    pictures = Pictures(difference.format, difference.median_db, difference.lowest_db, len(difference.pictures))
    near = describe_nearness(pictures, f"B ({b.title})", f"A ({a.title})", [d.controls for d in difference.drawn], "A")
    if broken:
        return Answer("Bound not met", f"{broken}; {near}", "failed")
    layer = compared.first_bad_layer or (
        f"no layer has an error above {compared.budget_text}" if compared.layers else ""
    )
    return Answer("", near[:1].upper() + near[1:] + (f"; {layer}" if layer else ""), "passed")


def describe_nearness(pictures: Pictures, drawn_by: str, reference: str, controls: Controls, short: str) -> str:
    """Return a clause with the PSNR of the pictures, compared with the nearest control. `short`: a short name of the
    reference. A control whose picture is equal to the original's is ignored."""
    count = "the picture" if pictures.count == 1 else f"the median of {pictures.count} pictures"
    if pictures.lowest_db == inf:
        same = "the picture by {} is" if pictures.count == 1 else f"all {pictures.count} pictures by {{}} are"
        return f"{same.format(drawn_by)} equal to {reference}, pixel for pixel"
    if pictures.lowest_db == -inf:
        return f"a picture by {drawn_by} or {reference} is not finite"
    lowest = "" if pictures.count == 1 else f" (minimum {_db(pictures.lowest_db)})"
    words = f"{count} by {drawn_by} agrees with {reference} at {_db(pictures.median_db)} PSNR{lowest}"
    told = {name: db for name, db in medians(controls).items() if db < inf}
    if not told:
        return f"{words}, without a control to compare with"
    name, db = max(told.items(), key=lambda control: control[1])
    nearer = "closer than" if pictures.median_db > db else "not closer than"
    return f"{words}, {nearer} the closest control picture, {short} drawn with {name} ({_db(db)})"


def describe_failure(verdict: Verdict) -> str:
    """Return a noun phrase that names the failed check and its error."""
    where = f"{verdict.format} {verdict.subject}" if verdict.format else verdict.subject
    where = f"{where} ({verdict.rung})"
    if not verdict.finite:
        return f"{where}, which is not finite or has another shape"
    if verdict.psnr_db < verdict.floor_db:
        return f"{where} with {verdict.psnr_db:.1f} dB (floor {verdict.floor_db:.1f} dB)"
    return f"{where} with a largest error of {verdict.max_abs:.2g} (limit {verdict.max_abs_limit:.2g})"


def pictures_of(verdicts: Iterable[Verdict]) -> list[Pictures]:
    """Return the PSNR of the pictures of each format that was judged."""
    medians = {v.format: v for v in verdicts if v.subject == MEDIAN and v.format is not None}
    lowest = {v.format: v.psnr_db for v in verdicts if v.subject == MINIMUM}
    return [Pictures(f, v.psnr_db, lowest.get(f, v.psnr_db), v.cases) for f, v in medians.items() if f is not None]


def _nearest_worst(model: str, verdicts: Iterable[Verdict], controls: Controls) -> str:
    """Return a clause on the format whose pictures have the lowest PSNR against the original's."""
    drawn = pictures_of(verdicts)
    if not drawn:
        return "no picture was drawn"
    worst = min(drawn, key=lambda each: (each.median_db, each.lowest_db))
    return describe_nearness(
        worst, f"the {worst.format} files", f"the original ({model})", controls, "the original"
    ) + (f" (the lowest of {len(drawn)} formats)" if len(drawn) > 1 else "")


def _lossy_recipes(graphs: Iterable[Graph]) -> list[str]:
    lossy = (graph.recipe for graph in graphs if graph.floor_db is not None or graph.picture_floors_db is not None)
    return sorted(set(lossy))


def _db(value: float) -> str:
    return "equal" if value == inf else f"{value:.1f} dB"
