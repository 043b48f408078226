"""The floors that a bundle states, beside those of its recipes: what is lower is named."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.sample_bundle import verdict, write_sample

from pocketdiffusion.export import rewrites
from pocketdiffusion.quantize.floors import CHANGED_DB
from pocketdiffusion.quantize.recipes import load_recipe, recipe_names
from pocketdiffusion.quantize.stated_floors import floor_faults, own_floors
from pocketdiffusion.runtime.bundle.manifest import UnsealedManifest

W8: Mapping[str, Any] = {"recipe": "w8", "storage": "int8", "floor_db": 40.0, "picture_floors_db": (35.0, 20.0)}
MINE: Mapping[str, Any] = {**W8, "recipe": "mine"}


def with_unet(folder: Path, **fields: Any) -> UnsealedManifest:
    """The sample bundle's record with other fields of its UNet."""
    folder.mkdir(exist_ok=True)
    draft = write_sample(folder)
    graphs = {**draft.graphs["onnx"], "unet": draft.graphs["onnx"]["unet"].model_copy(update=fields)}
    named = [f"{name}.{each.name}" for name, graph in graphs.items() for each in graph.spec.outputs]
    rounding = (replace(verdict(subject), rung="rounding") for subject in named)
    verdicts = (*draft.verdicts, *rounding)
    return draft.model_copy(update={"graphs": {"onnx": graphs}, "verdicts": verdicts})


def faults(draft: UnsealedManifest) -> list[str]:
    return [f"{path}: {reason}" for path, reason in floor_faults(draft, has_proof=True)]


@pytest.mark.parametrize("fields", [{}, W8, {**W8, "floor_db": 41.0}, MINE, {**MINE, "floor_db": 6.5}])
def test_floors_that_are_not_lower_are_good(fields: Mapping[str, Any], tmp_path: Path) -> None:
    assert faults(with_unet(tmp_path, **fields)) == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"floor_db": 20.0}, "unet.floor_db is 20.0, but the recipe fp16 has the gate's own"),
        ({"recipe": "fp32"}, "unet.storage is float16, but the recipe fp32 has float32"),
        ({"arithmetic": "float16"}, "unet.arithmetic is float16, but fp16 in onnx has float32"),
        ({**W8, "floor_db": 39.0}, "unet.floor_db is 39, but the recipe w8 has 40"),
        ({**W8, "floor_db": None}, "unet.floor_db is null, but the recipe w8 has its own floors"),
        ({**MINE, "picture_floors_db": None}, "unet.picture_floors_db is null, but the recipe mine has its own floors"),
        ({**W8, "picture_floors_db": (34.0, 20.0)}, "has 34 for the median, but the recipe w8 has 35"),
        ({**W8, "picture_floors_db": (35.0, 19.0)}, "has 19 for the minimum, but the recipe w8 has 20"),
    ],
)
def test_a_lower_floor_is_named(fields: Mapping[str, Any], said: str, tmp_path: Path) -> None:
    (found,) = faults(with_unet(tmp_path, **fields))
    assert found.startswith("pipeline/onnx.json: graphs.unet.") and said in found


def test_verdicts_that_move_floors_are_held_to_what_they_may(tmp_path: Path) -> None:
    draft = with_unet(tmp_path)
    without = draft.model_copy(update={"verdicts": tuple(v for v in draft.verdicts if v.rung != "rounding")})
    assert "proof.json: no verdict of the rung rounding on unet.out_sample, of onnx" in faults(without)
    changed = replace(verdict("unet.out_sample"), rung="changed", floor_db=20.0)
    said = "proof.json: the floor of unet.out_sample after a rewrite is 20 dB, and must be 76 or more"
    assert faults(draft.model_copy(update={"verdicts": (*draft.verdicts, changed)})) == [said]


def test_a_recipe_of_ones_own_is_told(tmp_path: Path) -> None:
    assert own_floors(with_unet(tmp_path, **MINE)) == ["mine"]
    for recipe in recipe_names():
        known = recipe in ("fp32", "fp16") or load_recipe(recipe).floors is not None
        assert known != bool(own_floors(with_unet(tmp_path / recipe, recipe=recipe)))


def test_no_rewrite_may_change_the_model_by_more() -> None:
    names = [file.stem for file in Path(rewrites.__file__).parent.glob("*.py") if file.stem != "__init__"]
    assert rewrites.changed_floor_db(names) == CHANGED_DB
