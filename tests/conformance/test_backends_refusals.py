"""Schemes that a format cannot store are refused with the reason and the nearest recipe, and all other ones are in the
file; wrong weights and options are refused by every format alike."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from support.backend_cases import RECIPES, SIZE, in_each_format, in_each_profile, matrix, read_parts, worst_db

from pocketdiffusion.export.artifact import Artifact
from pocketdiffusion.export.backends import backend_names, find_backend
from pocketdiffusion.export.backends.backend import Refusal
from pocketdiffusion.export.backends.emission import emit, emit_floats, find_refusal
from pocketdiffusion.export.checkpoints.safetensors_header import read_header
from pocketdiffusion.export.component import Component, load_module
from pocketdiffusion.quantize.quantized_tensor import restore, store
from pocketdiffusion.quantize.recipes import load_recipe, recipe_names
from pocketdiffusion.quantize.scheme import FLOAT16, FLOAT32, Plan, Scheme
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.verify.tolerances import FLOORS_DB

pytestmark = pytest.mark.slow  # most tests emit a graph


def storages() -> list[Scheme]:
    """Return every scheme of weights that a recipe or the search of any format has, with float arithmetic."""
    searched = [s for b in map(find_backend, backend_names()) for p in b.profiles for s in b.search_storages(p)]
    uniform = [Scheme("linear", bits, group) for bits in (4, 8) for group in (0, 32)]
    return list(dict.fromkeys([FLOAT32, FLOAT16, *searched, *uniform]))


@in_each_profile
@pytest.mark.parametrize("scheme", storages(), ids=lambda s: f"{s.storage}-{s.group}")
def test_a_storage_is_lowered_or_refused(artifact: Artifact, scheme: Scheme, tmp_path: Path) -> None:
    """A scheme that is not refused is in the file; a refusal has a reason, and its nearest recipe is not refused."""
    part = matrix(tmp_path)
    plan = Plan("own", {"weight": scheme})
    refusal = find_refusal([scheme], artifact.format, artifact.profile)
    if refusal is not None:
        check_refusal(refusal, artifact)
        words = re.escape(f"{refusal.reason}; the nearest is {refusal.nearest}")
        with pytest.raises(UserError, match=f"cannot use the recipe own: {words}"):
            emit(part, artifact, tmp_path / "out", open_batch=False, plan=plan)
        assert not (tmp_path / "out").exists()
        return
    graph = emit(part, artifact, tmp_path / "out", open_batch=False, plan=plan)
    weights = dict(load_module(part).named_parameters())
    stored = restore(store(weights["weight"].numpy(), scheme))
    reference = part.example(0)["x"].numpy() @ stored.T + weights["bias"].numpy()
    assert graph.stored == {scheme.storage: 1}
    assert (
        worst_db(part, tmp_path / "out", artifact.format, graph, [reference]) >= FLOORS_DB["float32", graph.arithmetic]
    )


def check_refusal(refusal: Refusal, artifact: Artifact) -> None:
    """Check that the reason can be continued in a sentence, and that the format accepts the nearest recipe."""
    assert refusal.reason and refusal.reason[-1] not in ".;" and refusal.nearest in recipe_names()
    assert find_refusal(schemes_of(refusal.nearest, artifact), artifact.format, artifact.profile) is None


def schemes_of(recipe: str, artifact: Artifact) -> list[Scheme]:
    """Return the schemes of a recipe for a matrix of each kind of operator, without measurements."""
    from pocketdiffusion.quantize.recipe import Unmeasured
    from pocketdiffusion.quantize.scheme import Weight

    weights = {kind: Weight((SIZE, SIZE), kind) for kind in ("conv", "linear", "embedding")}
    unmeasured = Unmeasured("part", artifact.format, artifact.profile, weights)
    return list(load_recipe(recipe).plan(weights, unmeasured).values())


@in_each_profile
@pytest.mark.parametrize("recipe", [name for name in recipe_names() if name != "mixed"])
def test_a_recipe_is_taken_or_its_refusal_leads_on(artifact: Artifact, recipe: str) -> None:
    refusal = find_refusal(schemes_of(recipe, artifact), artifact.format, artifact.profile)
    if recipe in RECIPES:
        assert refusal is None
    if refusal is not None:
        check_refusal(refusal, artifact)


def changed(part: Component, folder: Path, name: str, value: float) -> Component:
    """Return the component with one element of one tensor replaced."""
    tensors = load_file(next(iter(part.weights.values())).places[0].file)
    tensors[name].view(-1)[0] = value
    save_file(tensors, folder / "changed.safetensors")
    return replace(part, weights=read_header(folder / "changed.safetensors"))


@in_each_format
@pytest.mark.parametrize("name", ["weight", "bias"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite(format: str, name: str, value: float, tmp_path: Path) -> None:
    part = changed(matrix(tmp_path), tmp_path, name, value)
    with pytest.raises(ProofError, match=f"^weight {name} has values that are not finite"):
        emit_floats(part, replace(find_backend(format).default, recipe="fp32"), tmp_path, open_batch=False)


@in_each_format
def test_a_weight_too_large_for_half(format: str, tmp_path: Path) -> None:
    part = changed(matrix(tmp_path), tmp_path, "weight", 70000.0)
    emit_floats(part, replace(find_backend(format).default, recipe="fp32"), tmp_path / "fp32", open_batch=False)
    with pytest.raises(ProofError, match="^weight weight has the value 70000, over 65504.*fp32"):
        emit_floats(part, replace(find_backend(format).default, recipe="fp16"), tmp_path / "fp16", open_batch=False)


@in_each_format
def test_a_site_missing_writes_nothing(format: str, micro_checkpoint: Path, tmp_path: Path) -> None:
    part = next(iter(read_parts(micro_checkpoint).values()))
    wrong = replace(part, sites={**part.sites, "attention": part.sites["attention"] + 1})
    found = f"{part.spec.name}: {part.sites['attention']} attention sites were found"
    with pytest.raises(ProofError, match=found):
        emit_floats(wrong, replace(find_backend(format).default, recipe="fp32"), tmp_path, open_batch=False)
    assert not list(tmp_path.iterdir())


@in_each_format
def test_unknown_options(format: str, tmp_path: Path) -> None:
    part, artifact = matrix(tmp_path), find_backend(format).default
    with pytest.raises(UserError, match="the recipe int4 needs measurements"):
        emit_floats(part, replace(artifact, recipe="int4"), tmp_path, open_batch=False)
    with pytest.raises(UserError, match="profile 'none'"):
        emit_floats(part, replace(artifact, profile="none"), tmp_path, open_batch=False)
