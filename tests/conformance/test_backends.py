"""What every format must do, on the smallest model that has all kinds of sites: each registered backend, in each of its
profiles, with the rewrites of the phones that ship it."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from socket import gethostname

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.traced_parts import component_of, psnr
from torch import nn

from pocketdiffusion.export.artifact import Artifact
from pocketdiffusion.export.backends import backend_names, find_backend
from pocketdiffusion.export.backends.backend import Refusal
from pocketdiffusion.export.backends.emission import emit, find_refusal
from pocketdiffusion.export.backends.lazy import Lazy
from pocketdiffusion.export.backends.taps import open_layers
from pocketdiffusion.export.checkpoints import open_checkpoint
from pocketdiffusion.export.checkpoints.safetensors_header import read_header
from pocketdiffusion.export.checks.layer_errors import OriginalLayers, compare_layers, first_over
from pocketdiffusion.export.component import Component, load_module
from pocketdiffusion.export.families import components
from pocketdiffusion.export.planned import weights_of
from pocketdiffusion.export.reference.record import Request, record
from pocketdiffusion.export.targets import load_target, target_names
from pocketdiffusion.quantize.quantized_tensor import restore, store
from pocketdiffusion.quantize.recipes import load_recipe, recipe_names
from pocketdiffusion.quantize.scheme import FLOAT16, FLOAT32, Plan, Scheme
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.engines import engine_names, find_engine, load_runner
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.verify.recording import Trajectory
from pocketdiffusion.runtime.verify.tolerances import FLOORS_DB

pytestmark = pytest.mark.slow  # most tests emit a graph
ROOT = Path(__file__).parents[2]
RECIPES = ("fp32", "fp16")
SIZE = 64  # of a small matrix: blocks of 32 divide it


def shipped() -> list[Artifact]:
    """Each profile of each backend with the rewrites of its default, then what targets ship with others."""
    defaults = [find_backend(name).default for name in backend_names()]
    found = [replace(d, profile=profile) for d in defaults for profile in find_backend(d.format).profiles]
    for wanted in (a for target in map(load_target, target_names()) for a in target.artifacts):
        default = find_backend(wanted.format).default
        found.append(replace(default, profile=wanted.profile, rewrites=wanted.rewrites))
    return list(dict.fromkeys(found))


def each_profile() -> list[Artifact]:
    return [a for a in shipped() if a.rewrites == find_backend(a.format).default.rewrites]


def name_of(artifact: Artifact) -> str:
    own = find_backend(artifact.format).default.rewrites
    return "-".join([artifact.format, artifact.profile, *(r for r in artifact.rewrites if r not in own)])


in_each_artifact = pytest.mark.parametrize("artifact", shipped(), ids=name_of)
in_each_profile = pytest.mark.parametrize("artifact", each_profile(), ids=name_of)
in_each_format = pytest.mark.parametrize("format", backend_names())


def read_parts(folder: Path) -> dict[str, Component]:
    return {part.spec.name: part for part in components(open_checkpoint(str(folder), say=lambda line: None))}


@pytest.fixture(scope="module")
def parts(micro_checkpoint: Path) -> dict[str, Component]:
    return read_parts(micro_checkpoint)


@pytest.fixture(scope="module")
def trajectory(micro_checkpoint: Path, parts: dict[str, Component]) -> Trajectory:
    checkpoint = open_checkpoint(str(micro_checkpoint), say=lambda line: None)
    return record(checkpoint, list(parts.values()), [Request("red apple", seed=5, steps=2)])[0]


Emitted = Callable[[Artifact, str, str], tuple[Path, Graph]]


@pytest.fixture(scope="module")
def emitted(parts: dict[str, Component], tmp_path_factory: pytest.TempPathFactory) -> Emitted:
    """Folder and record of a graph in a recipe, written once; both recipes one after the other, as a build does."""
    home = tmp_path_factory.mktemp("conformance")

    @cache
    def write(artifact: Artifact, name: str) -> dict[str, tuple[Path, Graph]]:
        found = {}
        for recipe in RECIPES:
            folder = home / name_of(artifact) / recipe / name
            found[recipe] = folder, emit(parts[name], replace(artifact, recipe=recipe), folder, open_batch=False)
        return found

    return lambda artifact, name, recipe: write(artifact, name)[recipe]


GRAPHS = range(4)  # the graphs of the model, in the order of its family


def nth(parts: dict[str, Component], number: int) -> str:
    return list(parts)[number]


# The record


@in_each_format
def test_a_record_is_whole(format: str) -> None:
    """Each function that is imported late is there, and the engine's facts are those of the engine's own file."""
    backend = find_backend(format)
    assert backend.name == backend.default.format == format
    assert backend.default.profile in backend.profiles and backend.activations.keys() == set(backend.profiles)
    assert find_engine(format) == backend.engine and format in engine_names()
    lazies = [value for value in vars(backend).values() if isinstance(value, Lazy)]
    assert len(lazies) >= 7 and all(callable(each.resolve()) for each in lazies)


def test_an_unknown_format_names_the_nearest() -> None:
    for name in backend_names():
        with pytest.raises(UserError, match=f"there is no format {name}x: did you mean {name}"):
            find_backend(f"{name}x")
    assert find_engine("../onnx") is None and find_engine("io_adapter") is None


# Parity, bytes, what lies inside


def worst_db(part: Component, folder: Path, format: str, graph: Graph, reference: Sequence[Array]) -> float:
    """Of all outputs on the component's example, by the runner that users get."""
    found = load_runner(folder, format, graph)({key: tensor.numpy() for key, tensor in part.example(0).items()})
    return min(psnr(r, found[tensor.name]) for tensor, r in zip(part.spec.outputs, reference, strict=True))


@cache
def outputs_of(part: Component, halved: bool) -> list[Array]:
    """The original's, its matrices rounded to float16 where `halved`."""
    module = load_module(part)
    for parameter in module.parameters():
        if halved and parameter.ndim > 1:
            parameter.copy_(parameter.half())
    with torch.no_grad():
        outputs = module(*part.example(0).values())
    return [output.numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]


@in_each_artifact
@pytest.mark.parametrize("number", GRAPHS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_parity_of_every_graph(
    artifact: Artifact, number: int, recipe: str, parts: dict[str, Component], emitted: Emitted
) -> None:
    """The file holds by the gate's floors, its record says what it is, and nothing else was written. In float16
    storage it is as near to the original with its matrices rounded as a float32 file is: nothing is rounded twice."""
    part, (folder, graph) = parts[nth(parts, number)], emitted(artifact, nth(parts, number), recipe)
    storage = {"fp32": "float32", "fp16": "float16"}[recipe]
    arithmetic = find_backend(artifact.format).engine.half_arithmetic if recipe == "fp16" else "float32"
    assert (graph.spec, graph.profile, graph.recipe) == (part.spec, artifact.profile, recipe)
    assert (graph.storage, graph.arithmetic) == (storage, arithmetic)
    assert graph.parameters == sum(tensor.numel() for tensor in load_module(part).parameters())
    assert graph.stored == {storage: len(weights_of(part))} and graph.engine is not None
    assert graph.rewrites.keys() == {*artifact.rewrites} and all(
        graph.rewrites[kind] == count for kind, count in part.sites.items() if kind in graph.rewrites
    )
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert written == {*graph.files} and all(path.startswith(f"{artifact.format}/") for path in written)
    floor = FLOORS_DB["float32", arithmetic]
    assert worst_db(part, folder, artifact.format, graph, outputs_of(part, recipe == "fp16")) >= floor
    assert worst_db(part, folder, artifact.format, graph, outputs_of(part, False)) >= FLOORS_DB[storage, arithmetic]


@in_each_format
@pytest.mark.parametrize("number", GRAPHS)
def test_two_exports_are_the_same_bytes(
    format: str, number: int, micro_checkpoint: Path, tmp_path: Path, parts: dict[str, Component], emitted: Emitted
) -> None:
    """Of a model that is opened anew, so that no conversion which is kept can stand for the second."""
    artifact, name = find_backend(format).default, nth(parts, number)
    folder, graph = emitted(artifact, name, "fp16")
    again = emit(read_parts(micro_checkpoint)[name], replace(artifact, recipe="fp16"), tmp_path, open_batch=False)
    assert again == graph
    for file in graph.files:
        assert (tmp_path / file).read_bytes() == (folder / file).read_bytes(), file


@in_each_artifact
@pytest.mark.parametrize("number", GRAPHS)
def test_says_nothing_of_where_it_was_made(
    artifact: Artifact, number: int, parts: dict[str, Component], emitted: Emitted
) -> None:
    folder, graph = emitted(artifact, nth(parts, number), "fp16")
    words = [b"site-packages", b"Traceback", b"torch==", bytes(ROOT), bytes(folder), bytes(Path.home())]
    words += [gethostname().encode()] if len(gethostname()) > 4 else []
    for file in graph.files:
        raw = (folder / file).read_bytes()
        assert not [word for word in words if word in raw], file


@in_each_format
def test_it_prints_nothing(format: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    emit(matrix(tmp_path), replace(find_backend(format).default, recipe="fp16"), tmp_path, open_batch=False)
    assert capfd.readouterr() == ("", "")


# Intermediate outputs


@in_each_artifact
@pytest.mark.parametrize("number", GRAPHS)
def test_layers_of_an_artifact(
    artifact: Artifact, number: int, parts: dict[str, Component], emitted: Emitted, trajectory: Trajectory
) -> None:
    """All that have a matrix are found, but for positions that a converter looked up itself; and each gives what the
    original's gives."""
    name = nth(parts, number)
    folder, written = emitted(artifact, name, "fp16")
    names = [module for module, _ in written.layers]
    wanted = {weight.rpartition(".")[0] for weight in weights_of(parts[name])}
    assert len(names) == len(set(names)) and set(names) <= wanted
    assert all(module.endswith("position_embedding") for module in wanted - set(names))
    layers = open_layers(folder, artifact.format, written)
    errors = compare_layers(name, OriginalLayers(parts[name]), layers, trajectory)
    assert [error.module for error in errors] == names
    limit = 0.02 if written.arithmetic == "float16" else 2e-3
    assert max(error.largest for error in errors) < limit and first_over(errors, limit) is None


# Refusals


def matrix(folder: Path) -> Component:
    inputs = {"x": torch.randn(1, SIZE, generator=torch.Generator().manual_seed(1))}
    return component_of(folder, lambda: nn.Linear(SIZE, SIZE), inputs, {"y": (1, SIZE)}, {})


def storages() -> list[Scheme]:
    """Every scheme of weights that a recipe or the search of any format has, with float arithmetic."""
    searched = [s for b in map(find_backend, backend_names()) for p in b.profiles for s in b.search_storages(p)]
    uniform = [Scheme("linear", bits, group) for bits in (4, 8) for group in (0, 32)]
    return list(dict.fromkeys([FLOAT32, FLOAT16, *searched, *uniform]))


@in_each_profile
@pytest.mark.parametrize("scheme", storages(), ids=lambda s: f"{s.storage}-{s.group}")
def test_a_storage_is_lowered_or_refused(artifact: Artifact, scheme: Scheme, tmp_path: Path) -> None:
    """What is not refused is in the file; what is refused says why, and the recipe to take instead is not refused."""
    part = matrix(tmp_path)
    plan = Plan("own", {"weight": scheme})
    refusal = find_refusal([scheme], artifact.format, artifact.profile)
    if refusal is not None:
        check_refusal(refusal, artifact)
        words = re.escape(f"{refusal.reason}; the nearest is {refusal.nearest}")
        with pytest.raises(UserError, match=f"does not take the recipe own: {words}"):
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
    """The reason goes on in a sentence, and the nearest recipe is one that the format takes."""
    assert refusal.reason and refusal.reason[-1] not in ".;" and refusal.nearest in recipe_names()
    assert find_refusal(schemes_of(refusal.nearest, artifact), artifact.format, artifact.profile) is None


def schemes_of(recipe: str, artifact: Artifact) -> list[Scheme]:
    """What a recipe does with a matrix of each kind of operator, where no measurement says otherwise."""
    from pocketdiffusion.planning import _Unmeasured
    from pocketdiffusion.quantize.scheme import Weight

    weights = {kind: Weight((SIZE, SIZE), kind) for kind in ("conv", "linear", "embedding")}
    unmeasured = _Unmeasured("part", artifact.format, artifact.profile, weights)
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
    """The component with one element of one tensor replaced."""
    tensors = load_file(next(iter(part.weights.values())).places[0].file)
    tensors[name].view(-1)[0] = value
    save_file(tensors, folder / "changed.safetensors")
    return replace(part, weights=read_header(folder / "changed.safetensors"))


@in_each_format
@pytest.mark.parametrize("name", ["weight", "bias"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite(format: str, name: str, value: float, tmp_path: Path) -> None:
    part = changed(matrix(tmp_path), tmp_path, name, value)
    with pytest.raises(ProofError, match=f"^{name}: the checkpoint holds values that are not finite"):
        emit(part, replace(find_backend(format).default, recipe="fp32"), tmp_path, open_batch=False)


@in_each_format
def test_a_weight_too_large_for_half(format: str, tmp_path: Path) -> None:
    part = changed(matrix(tmp_path), tmp_path, "weight", 70000.0)
    emit(part, replace(find_backend(format).default, recipe="fp32"), tmp_path / "fp32", open_batch=False)
    with pytest.raises(ProofError, match="^weight: 70000 is over 65504.*fp32"):
        emit(part, replace(find_backend(format).default, recipe="fp16"), tmp_path / "fp16", open_batch=False)


@in_each_format
def test_a_site_missing_writes_nothing(format: str, parts: dict[str, Component], tmp_path: Path) -> None:
    part = parts[nth(parts, 0)]
    wrong = replace(part, sites={**part.sites, "attention": part.sites["attention"] + 1})
    found = f"{part.spec.name}: the graph has {part.sites['attention']} attention sites"
    with pytest.raises(ProofError, match=found):
        emit(wrong, replace(find_backend(format).default, recipe="fp32"), tmp_path, open_batch=False)
    assert not list(tmp_path.iterdir())


@in_each_format
def test_unknown_options(format: str, tmp_path: Path) -> None:
    part, artifact = matrix(tmp_path), find_backend(format).default
    with pytest.raises(UserError, match="there is no recipe int4"):
        emit(part, replace(artifact, recipe="int4"), tmp_path, open_batch=False)
    with pytest.raises(UserError, match="profile 'none'"):
        emit(part, replace(artifact, profile="none"), tmp_path, open_batch=False)
