"""Complete pictures, drawn free-running by the artifacts of a bundle, compared with the original's."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol

from pocketdiffusion.runtime.bundle.bundle import Bundle
from pocketdiffusion.runtime.bundle.graph_records import Graph
from pocketdiffusion.runtime.bundle.verdicts import Kind, NotFinite, Verdict
from pocketdiffusion.runtime.engines import Opener, open_graph
from pocketdiffusion.runtime.pipeline import generate
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.verify.check import Check, Scope, Tolerance
from pocketdiffusion.runtime.verify.finite import find_not_finite, largest
from pocketdiffusion.runtime.verify.metrics import image_psnr_db, psnr_db, ssim
from pocketdiffusion.runtime.verify.recording import Trajectory, recorded_picture
from pocketdiffusion.runtime.verify.tolerances import control_floor, picture_floors


@dataclass(frozen=True)
class PictureReport:
    """One prompt drawn free-running. `drift_db` is the PSNR of the latents after each call against the original's;
    `first_diverging` is the first call whose latents have less than 20 dB, 0 if there is none. If latents or the
    decoded picture have NaN or infinity on either side, `not_finite` says where, `psnr_db` is -inf and `ssim` is 0,
    because both sides would be black in 8 bits."""

    format: str
    prompt: str
    psnr_db: float
    ssim: float
    drift_db: tuple[float, ...]
    picture: Array
    not_finite: NotFinite | None = None

    @property
    def rmse(self) -> float:
        """Return the root mean square error in levels of 0..255."""
        return float(255 * 10 ** (-self.psnr_db / 20))

    @property
    def first_diverging(self) -> int:
        return next((n for n, db in enumerate(self.drift_db, 1) if db < 20), 0)


class Drawn(Protocol):
    """A picture by the original, with all settings that are needed to draw it again."""

    @property
    def prompt(self) -> str: ...
    @property
    def negative_prompt(self) -> str | None: ...
    @property
    def seed(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def guidance(self) -> float: ...
    @property
    def sampler(self) -> str: ...


def draw_again(
    bundle: Bundle, original: Drawn, format: str, *, steps: int | None = None, opener: Opener = open_graph
) -> tuple[list[Array], Array, Array]:
    """Draw with the bundle what the original drew, in as many steps or in `steps`. Return the latents float32 [1, c, h,
    w] after each step, the decoder's output, float32 [1, 3, H, W], and the picture, uint8 [H, W, 3]."""
    drafts = list(
        generate(
            bundle,
            original.prompt,
            negative_prompt=original.negative_prompt,
            seed=original.seed,
            steps=original.steps if steps is None else steps,
            guidance=original.guidance,
            sampler=original.sampler,
            format=format,
            opener=opener,
        )
    )
    picture, decoded = drafts[-1].picture, drafts[-1].decoded
    assert picture is not None and decoded is not None
    return [draft.latents for draft in drafts], decoded, picture


def draw_pictures(
    bundle: Bundle, trajectories: Iterable[Trajectory], format: str, opener: Opener = open_graph
) -> Iterator[PictureReport]:
    """Draw each trajectory's prompt with the runners that `opener` opens, and yield the comparison with its picture."""
    for t in trajectories:
        yield compare_picture(format, t, *draw_again(bundle, t, format, opener=opener))


def compare_picture(
    format: str, t: Trajectory, latents: Sequence[Array], decoded: Array, picture: Array
) -> PictureReport:
    """Compare a drawing of the candidate with the recorded one: `latents` float32 [1, c, h, w] after each UNet call,
    `decoded` float32 [1, 3, H, W] and `picture` uint8 [H, W, 3]."""
    peak = largest([t.latents])
    expected = [each[None] for each in t.latents[1:]]
    drift = tuple(psnr_db(one, other, peak) for one, other in zip(expected, latents, strict=True))
    places = [*enumerate(zip(expected, latents, strict=True), 1), (0, (recorded_picture(t), decoded))]
    found = (
        find_not_finite(f"latents after step {n} of {t.prompt!r}" if n else f"picture of {t.prompt!r}", one, other)
        for n, (one, other) in places
    )
    not_finite = next((each for each in found if each is not None), None)
    if not_finite is not None:
        return PictureReport(format, t.prompt, -inf, 0.0, drift, picture, not_finite)
    return PictureReport(format, t.prompt, image_psnr_db(t.picture, picture), ssim(t.picture, picture), drift, picture)


def judge_pictures(
    reports: Sequence[PictureReport],
    graphs: Iterable[Graph],
    scope: Scope,
    controls: Sequence[Mapping[str, float]] = (),
) -> list[Verdict]:
    """Return the verdicts on the median and the minimum over the prompts, each against its floor
    (`tolerances.picture_floors`). The median of a recipe that is not lossy must also be higher than each of `controls`,
    which holds the original's own controls (dB) of each prompt. The storage of `scope` is ignored, the storage of
    `graphs` is used."""
    graphs = list(graphs)
    floors, storage = picture_floors(graphs, scope.arithmetic)
    if all(graph.picture_floors_db is None for graph in graphs):
        floors = (max(floors[0], control_floor(controls)), floors[1])
    ranked = sorted(reports, key=lambda report: report.psnr_db)
    chosen = {"median": ranked[(len(ranked) - 1) // 2], "minimum": ranked[0]}
    return [
        picture_verdict(
            f"pictures.{name}",
            report,
            Check(Kind.PICTURES, Tolerance(floor), Scope(report.format, storage, scope.arithmetic, scope.device)),
            len(reports),
        )
        for (name, report), floor in zip(chosen.items(), floors, strict=True)
    ]


def picture_verdict(subject: str, report: PictureReport, check: Check, cases: int = 1) -> Verdict:
    """Return the verdict of `check` on a picture, one of `cases`; its errors are in levels of 0..255."""
    return Verdict(
        subject=subject,
        rung=check.rung,
        format=check.scope.format,
        storage=check.scope.storage,
        arithmetic=check.scope.arithmetic,
        floor_db=check.tolerance.of(subject),
        psnr_db=report.psnr_db,
        peak=255.0,
        max_abs=report.rmse,
        worst=(),
        worst_case=repr(report.prompt),
        relative=report.rmse / 255,
        finite=report.not_finite is None and all(db > -inf for db in report.drift_db),
        cases=cases,
        device=check.scope.device,
        not_finite=report.not_finite,
    )
