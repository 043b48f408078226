"""Choices that are checked before torch is imported: names of models, and the unit of a recipe in float32."""

from pathlib import Path

import pytest

from pocketdiffusion.choices import check_model, choose
from pocketdiffusion.export.targets import load_target
from pocketdiffusion.runtime.errors import UserError


@pytest.mark.parametrize("name", ["emoji", "user/model", "civitai:1234", "s3://bucket/model", "https://host/a/b.zip"])
def test_names_that_are_no_paths_are_left_to_the_sources(name: str) -> None:
    check_model(name)


@pytest.mark.parametrize("name", ["a/b/c", "/absent/model", "./absent", "~/absent", "C:/models/absent"])
def test_paths_that_are_not_there_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="there is no folder or file"):
        check_model(name)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no model_index.json"):
        check_model(str(tmp_path))


@pytest.mark.parametrize(("recipe", "unit"), [("fp32", "gpu"), ("fp16", "ane"), ("palette6", "ane"), (None, "ane")])
def test_float32_is_not_for_a_unit_of_float16(recipe: str | None, unit: str) -> None:
    (artifact,) = choose(load_target("iphone-15"), recipe, None, None).artifacts
    assert artifact.compute_unit == unit
