"""Where tiles begin, and how they are blended."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketdiffusion.runtime.bundle.picture_records import Latents, Vae
from pocketdiffusion.runtime.bundle.tiling import find_tiling
from pocketdiffusion.runtime.vae_tiles import Tiling, blend_tiles, cut_tiles, tile_starts

CASES = json.loads((Path(__file__).parent / "golden/tiles.json").read_text(encoding="utf-8"))["cases"]


def vae(size: int | None, overlap: int | None) -> Vae:
    return Vae(scaling_factor=1.0, shift_factor=0.0, tile_size=size, tile_overlap=overlap)


def tiling_of(case: dict[str, Any]) -> Tiling:
    height, width = case["latents"]
    found = find_tiling(
        Latents(channels=4, height=height, width=width, scale=case["scale"]),
        vae(case["tile_size"], case["tile_overlap"]),
    )
    assert found is not None
    return found


@pytest.mark.parametrize("case", CASES, ids=[str(case["latents"]) for case in CASES])
def test_the_golden_tiles_are_blended_exactly(case: dict[str, Any]) -> None:
    tiling, (height, width) = tiling_of(case), case["latents"]
    assert [*tiling.rows] == case["rows"] and [*tiling.columns] == case["columns"]
    shape = 1, 3, *(size * case["scale"] for size in tiling.shape)
    tiles = [np.array(tile, np.float32).reshape(shape) for tile in case["tiles"]]
    picture = blend_tiles(tiling, tiles)
    assert picture.dtype == np.float32
    assert picture.shape == (1, 3, height * case["scale"], width * case["scale"])
    np.testing.assert_array_equal(picture.reshape(-1), np.array(case["picture"], np.float32))


@pytest.mark.parametrize(
    "size, tile, overlap", [(11, 4, 1), (64, 32, 8), (9, 8, 7), (5, 4, 1), (17, 8, 4), (96, 64, 16)]
)
def test_tiles_cover_the_axis_and_share_the_overlap(size: int, tile: int, overlap: int) -> None:
    starts = tile_starts(size, tile, overlap)
    assert starts[0] == 0 and starts[-1] + tile == size
    steps = np.diff(starts)
    assert steps.min() > 0 and (tile - steps).min() >= overlap
    assert steps.max() - steps.min() <= 1
    if len(starts) > 2:
        assert (len(starts) - 2) * (tile - overlap) + tile < size, "one tile less would do"


def test_tiles_of_one_picture_are_blended_to_that_picture() -> None:
    tiling = Tiling(height=7, width=10, scale=1, tile=4, overlap=2)
    picture = np.random.default_rng(3).standard_normal((1, 3, 7, 10)).astype(np.float32)
    np.testing.assert_array_equal(blend_tiles(tiling, cut_tiles(tiling, picture)), picture)


def test_a_value_that_is_not_finite_stays_visible() -> None:
    tiling = Tiling(height=4, width=7, scale=1, tile=4, overlap=1)
    for number in range(2):
        tiles = [np.zeros((1, 3, 4, 4), np.float32) for _ in range(2)]
        tiles[number][0, 0, 1, 3 if number == 0 else 0] = np.nan
        assert np.isnan(blend_tiles(tiling, tiles)).sum() == 1


def test_without_tiles_there_is_no_tiling() -> None:
    assert find_tiling(Latents(channels=4, height=8, width=8, scale=8), vae(None, None)) is None


@pytest.mark.parametrize(
    "size, overlap, said",
    [
        (36, 8, "tile_size is 36, which is not a multiple"),
        (32, 4, "tile_overlap is 4, which is not a multiple"),
        (96, 8, "tile_size is 96, and the larger side of the picture is 96"),
    ],
)
def test_tiles_that_do_not_fit_the_latents_are_refused(size: int, overlap: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        find_tiling(Latents(channels=4, height=8, width=12, scale=8), vae(size, overlap))


@pytest.mark.parametrize("size, overlap", [(32, None), (None, 8), (32, 32), (32, 40)])
def test_half_a_tile_size_is_refused(size: int | None, overlap: int | None) -> None:
    with pytest.raises(ValueError, match="tile_overlap"):
        vae(size, overlap)
