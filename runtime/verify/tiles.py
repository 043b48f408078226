"""Verdicts on blended tiles: how near the blended picture is to the picture that the original decoded in one call, and
whether the borders of tiles can be seen.

Both judge the original's own tiles, so that precision and artifacts play no part: what is wrong is the size of the
tiles, their overlap, or the reader's blending. The artifacts are judged on tiles like every graph, and complete
pictures against the original's, decoded in the same tiles."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf, log10

import numpy as np

from pocketdiffusion.runtime.bundle.verdicts import Kind, Verdict
from pocketdiffusion.runtime.image import to_uint8
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.vae_tiles import Tiling
from pocketdiffusion.runtime.verify.metrics import image_psnr_db
from pocketdiffusion.runtime.verify.recording import Trajectory, recorded_picture
from pocketdiffusion.runtime.verify.tolerances import SEAM_DB, TILES_DB

TILES, SEAMS = "tiles", "seams"  # the subjects of the verdicts
LEAST_EDGE = 0.1  # levels of 0..255, added to every mean edge, so that pictures of one colour can be compared


@dataclass(frozen=True)
class Tiled:
    """The original's picture of one prompt, uint8 [H, W, 3], decoded in one call and in tiles."""

    prompt: str
    tiling: Tiling
    undivided: Array
    blended: Array


def judge_tiles(trajectories: Iterable[Trajectory]) -> list[Verdict]:
    """Return the verdicts on the recorded tiles of the original, blended as a reader does: `tiles`, the lowest PSNR of
    a picture, and `seams`, the ratio of edges in dB, over all pictures. Return [] without tiles."""
    found = [
        Tiled(repr(t.prompt), t.tiling, t.undivided, to_uint8(recorded_picture(t)))
        for t in trajectories
        if t.tiling is not None and t.undivided is not None
    ]
    return [_judge_distance(found), _judge_seams(found)] if found else []


def _judge_distance(found: Sequence[Tiled]) -> Verdict:
    case_db = tuple(image_psnr_db(each.undivided, each.blended) for each in found)
    worst = min(range(len(found)), key=lambda number: case_db[number])
    return _verdict(TILES, TILES_DB, case_db[worst], found[worst].prompt, case_db)


def _judge_seams(found: Sequence[Tiled]) -> Verdict:
    each_db = tuple(_to_db(seam_ratio([each])) for each in found)
    worst = min(range(len(found)), key=lambda number: each_db[number])
    return _verdict(SEAMS, SEAM_DB, _to_db(seam_ratio(found)), found[worst].prompt, each_db)


def _to_db(ratio: float) -> float:
    return -20 * log10(ratio) if ratio > 0 else inf


def _verdict(subject: str, floor: float, found: float, label: str, case_db: tuple[float, ...]) -> Verdict:
    """Return a verdict whose only number is `found`, in dB."""
    relative = float(10 ** (-found / 20))
    return Verdict(
        subject=subject,
        rung=Kind.STAGE.value,
        format=None,
        storage="float32",
        arithmetic="float32",
        floor_db=floor,
        psnr_db=found,
        peak=255.0,
        max_abs=255 * relative,
        worst=(),
        worst_case=label,
        relative=relative,
        finite=True,
        cases=len(case_db),
        case_db=case_db,
    )


def seam_ratio(found: Sequence[Tiled]) -> float:
    """Return how much stronger edges are at the seams of tiles than elsewhere: 1 where no seam can be seen.

    An edge is the mean absolute difference in levels between neighbouring pixels on both sides of a line, from border
    to border of the picture; of seams and of all other lines the mean over pictures and axes is taken. Pictures have
    edges of their own, so that each of the two means is divided by the same mean of the pictures that were decoded in
    one call."""
    blended, undivided = (
        [np.concatenate(parts) for parts in zip(*pairs, strict=True)]
        for pairs in (
            [_edges(each.tiling, each.blended) for each in found],
            [_edges(each.tiling, each.undivided) for each in found],
        )
    )
    at_seams, elsewhere = (
        (float(b.mean()) + LEAST_EDGE) / (float(w.mean()) + LEAST_EDGE) for b, w in zip(blended, undivided, strict=True)
    )
    return at_seams / elsewhere


def _edges(tiling: Tiling, picture: Array) -> tuple[Array, Array]:
    """Return the edges of a picture along all lines at seams, and along all other lines, both axes."""
    at_seams, elsewhere = [], []
    levels = picture.astype(np.float64)
    for axis, starts, tile in ((0, tiling.rows, tiling.shape[0]), (1, tiling.columns, tiling.shape[1])):
        lines = np.abs(np.diff(levels, axis=axis)).mean(axis=(1 - axis, 2))
        seams = sorted(set(seam_lines(starts, tile, tiling.scale)))
        at_seams.append(lines[np.array(seams, np.int64) - 1])
        elsewhere.append(np.delete(lines, np.array(seams, np.int64) - 1))
    return np.concatenate(at_seams), np.concatenate(elsewhere)


def seam_lines(starts: Sequence[int], tile: int, scale: int) -> Iterator[int]:
    """Yield the pixel that begins behind each line where a seam can be: where a tile begins, where the tile before it
    ends, and half-way between. `starts` and `tile` are in latents."""
    for before, start in zip(starts, starts[1:], strict=False):
        end = before + tile
        yield from (scale * start, scale * end, scale * (start + end) // 2)
