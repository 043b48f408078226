"""Bundles whose VAE decodes in tiles that readers blend: near the pictures of one piece, without visible seams, and
what the gate says where it is otherwise."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from support.command import refusal

from pocketdiffusion.build import export
from pocketdiffusion.choices import ExportOptions
from pocketdiffusion.export.families import components
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.export.reference.record import record
from pocketdiffusion.export.reference.requests import PROOFS
from pocketdiffusion.export.targets import load_target
from pocketdiffusion.export.tile_size import TileSize, choose_tiling
from pocketdiffusion.runtime import vae_tiles
from pocketdiffusion.runtime.bundle.bundle import Bundle
from pocketdiffusion.runtime.bundle.runtime_part import copy_runtime_part
from pocketdiffusion.runtime.bundle.verdicts import Verdict
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.pipeline import draw
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.verify.metrics import image_psnr_db
from pocketdiffusion.runtime.verify.recording import Trajectory
from pocketdiffusion.runtime.verify.tiles import Tiled, judge_tiles, seam_lines, seam_ratio
from pocketdiffusion.verify import Model, check_verified, verify

Lay = Callable[[Array, Array, int], None]


@pytest.mark.parametrize(
    "size, wanted, expected",
    [
        ((16, 16), TileSize(), (14, 3)),  # the built-in model
        ((64, 64), TileSize(), (56, 14)),  # Stable Diffusion 1.5
        ((64, 96), TileSize(), (64, 16)),
        ((128, 128), TileSize(), (64, 16)),  # Stable Diffusion XL
        ((192, 192), TileSize(), (96, 24)),
        ((64, 64), TileSize(256), (32, 8)),
        ((64, 64), TileSize(256, 128), (32, 16)),
    ],
)
def test_the_size_of_tiles(size: tuple[int, int], wanted: TileSize, expected: tuple[int, int]) -> None:
    tiling = choose_tiling(*size, 8, wanted)
    assert (tiling.tile, tiling.overlap) == expected
    assert len(tiling.places) > 1


@pytest.mark.parametrize("size", [0, 4, 60, 127, 128, 1000])
def test_a_size_that_is_not_possible_is_refused(size: int) -> None:
    with pytest.raises(UserError, match=f"--vae-tile-size {size} is not possible: .* multiples of 8 .* from 16 to 120"):
        choose_tiling(16, 16, 8, TileSize(size))
    with pytest.raises(UserError, match="pictures of 16x16 are too small for tiles"):
        choose_tiling(2, 2, 8, TileSize())


def test_options_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    command = ("export", "emoji", "--target", "generic", "-o", tmp_path / "out")
    assert refusal(*command, "--vae-tiles", "mixed") == "--vae-tiles mixed is not known: give none, exact or blended"
    assert "--vae-tile-size is for blended tiles only" in refusal(*command, "--vae-tile-size", "32")


def test_a_target_can_state_the_tiles(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "export/targets/generic.toml").read_text()
    (tmp_path / "tiled.toml").write_text(f'vae_tiles = "blended"\n{text}')
    assert load_target("tiled", tmp_path).vae_tiles == "blended"
    (tmp_path / "tiled.toml").write_text(f'vae_tiles = "some"\n{text}')
    with pytest.raises(UserError, match="tiled.toml: vae_tiles is 'some' and must be one of none, exact, blended"):
        load_target("tiled", tmp_path)


def test_seams_are_the_ends_and_the_middle_of_what_tiles_share() -> None:
    assert [*seam_lines((0, 2, 4, 7), 4, 8)] == [16, 32, 24, 32, 48, 40, 56, 64, 60]


def test_edges_of_the_picture_itself_are_no_seams() -> None:
    tiling = vae_tiles.Tiling(8, 8, 4, 6, 2)
    undivided = np.zeros((32, 32, 3), np.uint8)
    undivided[:, 8:] = 60  # an edge where a tile begins
    assert seam_ratio([Tiled("", tiling, undivided, undivided)]) == 1
    seam = undivided.copy()
    seam[8:] += 20
    assert seam_ratio([Tiled("", tiling, undivided, seam)]) > 1.1


# The recorded original.


@cache
def recorded() -> Trajectory:
    """What the original draws for a quick proof, in the built-in model's tiles."""
    checkpoint = open_checkpoint("emoji")
    (found,) = record(checkpoint, components(checkpoint, tiles=TileSize()), PROOFS["quick"].requests)
    return found


def failed(verdicts: list[Verdict]) -> set[str]:
    return {verdict.subject for verdict in verdicts if not verdict.passed}


def test_the_original_is_recorded_in_tiles_and_in_one_piece() -> None:
    t = recorded()
    assert t.tiling is not None and t.undivided is not None
    labels = [case.label for case in t.calls["vae_decoder"]]
    assert [label.partition("', ")[2] for label in labels] == ["tile 1", "tile 2", "tile 3", "tile 4"]
    assert {case.inputs["latent_sample"].shape for case in t.calls["vae_decoder"]} == {(1, 4, 14, 14)}
    assert t.calls["vae_encoder"][0].inputs["sample"].shape == (1, 3, 64, 64)
    assert t.picture.shape == t.undivided.shape == (64, 64, 3)
    assert failed(judge_tiles([t])) == set()
    assert judge_tiles([replace(t, tiling=None, undivided=None)]) == []


def hard_seam(laid: Array, piece: Array, shared: int) -> None:
    laid[..., : piece.shape[-1]] = piece


def hard_seam_behind(laid: Array, piece: Array, shared: int) -> None:
    laid[..., shared : piece.shape[-1]] = piece[..., shared:]


def weights_above_1(laid: Array, piece: Array, shared: int) -> None:
    laid[..., :shared] += vae_tiles.blend_weights(shared) * piece[..., :shared]
    laid[..., shared : piece.shape[-1]] = piece[..., shared:]


def weights_of_half(laid: Array, piece: Array, shared: int) -> None:
    laid[..., :shared] += np.float32(0.5) * (piece[..., :shared] - laid[..., :shared])
    laid[..., shared : piece.shape[-1]] = piece[..., shared:]


def shifted(laid: Array, piece: Array, shared: int) -> None:
    unchanged(laid, np.roll(piece, 4, axis=-1) if shared else piece, shared)


unchanged = vae_tiles.lay_over
BLENDS: list[Lay] = [hard_seam, hard_seam_behind, weights_above_1, weights_of_half, shifted]


@pytest.mark.parametrize("lay", BLENDS)
def test_a_wrong_blend_fails(lay: Lay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae_tiles, "lay_over", lay)
    assert "tiles" in failed(judge_tiles([recorded()]))
    assert lay is shifted or "seams" in failed(judge_tiles([recorded()]))


# Bundles.

TARGETS = {"onnx": "generic", "tflite": "galaxy-s24", "coreml": "iphone-15"}
FORMATS = pytest.mark.parametrize("format", TARGETS)
PROMPT = {"negative_prompt": "blurry, low quality", "seed": 2, "steps": 3, "guidance": 5.0}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    """The built-in model in float32 with blended tiles, by format."""

    @cache
    def exported_as(format: str) -> Bundle:
        out = tmp_path_factory.mktemp("tiles") / format
        return export(
            "emoji",
            TARGETS[format],
            out,
            ExportOptions(format=format, recipe="fp32", vae_tiles="blended", proof="quick"),
        )

    return exported_as


@pytest.mark.slow
@FORMATS
def test_pictures_are_near_those_of_one_piece(exported: Callable[[str], Bundle], format: str) -> None:
    bundle, original = exported(format), recorded()
    picture = draw(bundle, original.prompt, **PROMPT)
    tiling = original.tiling
    assert tiling is not None and original.undivided is not None
    assert image_psnr_db(original.undivided, picture) >= 35
    assert image_psnr_db(original.picture, picture) >= 50
    assert seam_ratio([Tiled("", tiling, original.undivided, picture)]) <= 1.1
    np.testing.assert_array_equal(draw(bundle, original.prompt, **PROMPT, low_memory=True), picture)
    redrawn = draw(bundle, original.prompt, **PROMPT, image=picture, strength=0.7)
    assert redrawn.shape == picture.shape and image_psnr_db(picture, redrawn) < 50
    verdicts = {verdict.subject: verdict for verdict in bundle.manifest.verdicts}
    assert (verdicts["tiles"].floor_db, verdicts["tiles"].cases) == (35, 1)
    assert verdicts["seams"].floor_db == pytest.approx(-20 * np.log10(1.1))
    assert verdicts["vae_decoder.sample"].cases == 4
    report = (bundle.folder / "report/report.html").read_text()
    assert "decodes a picture in 4 tiles of 56x56 pixels" in report


@pytest.mark.slow
def test_it_is_verified_compared_and_shipped(exported: Callable[[str], Bundle], tmp_path: Path) -> None:
    folder = exported("onnx").folder
    check_verified(verify(folder))
    check_verified(verify(folder, against=Model("emoji")))
    copy_runtime_part(folder, tmp_path / "part")
    check_verified(verify(tmp_path / "part"))


@pytest.mark.slow
def test_an_export_whose_tiles_show_seams_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(vae_tiles, "lay_over", hard_seam)
    with pytest.raises(ProofError, match=r"tiles \(stage\): PSNR [12].* at least 35 dB required; .* 2 checks failed"):
        export(
            "emoji",
            "generic",
            tmp_path / "out",
            ExportOptions(format="onnx", recipe="fp32", vae_tiles="blended", proof="quick"),
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_tiles_that_are_too_small_fail(tmp_path: Path) -> None:
    with pytest.raises(ProofError, match=r"tiles \(stage\): PSNR 2"):
        export(
            "emoji",
            "generic",
            tmp_path / "out",
            ExportOptions(format="onnx", recipe="fp32", vae_tiles="blended", vae_tile_size=32, proof="quick"),
        )
