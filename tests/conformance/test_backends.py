"""The requirements of every format, on the smallest model that has all kinds of sites: each registered backend in each
of its profiles, with the rewrites of the phones that ship it."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from socket import gethostname

import pytest
import torch
from support.backend_cases import RECIPES, in_each_artifact, in_each_format, matrix, name_of, read_parts, worst_db

from pocketdiffusion.export.artifact import Artifact
from pocketdiffusion.export.backends import backend_names, find_backend
from pocketdiffusion.export.backends.emission import emit_floats
from pocketdiffusion.export.backends.intermediate_outputs import open_layers
from pocketdiffusion.export.backends.lazy import Lazy
from pocketdiffusion.export.checks.layer_errors import OriginalLayers, compare_layers, first_over
from pocketdiffusion.export.component import Component, load_module
from pocketdiffusion.export.matrices import weights_of
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.export.reference.record import Request, record
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.engines import engine_names, find_engine
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.verify.recording import Trajectory
from pocketdiffusion.runtime.verify.tolerances import FLOORS_DB

pytestmark = pytest.mark.slow  # most tests emit a graph
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def parts(micro_checkpoint: Path) -> dict[str, Component]:
    return read_parts(micro_checkpoint)


@pytest.fixture(scope="module")
def trajectory(micro_checkpoint: Path, parts: dict[str, Component]) -> Trajectory:
    checkpoint = open_checkpoint(str(micro_checkpoint), progress=lambda line: None)
    return record(checkpoint, list(parts.values()), [Request("red apple", seed=5, steps=2)])[0]


Emitted = Callable[[Artifact, str, str], tuple[Path, Graph]]


@pytest.fixture(scope="module")
def emitted(parts: dict[str, Component], tmp_path_factory: pytest.TempPathFactory) -> Emitted:
    """Return folder and record of a graph in a recipe, written once; both recipes one after the other, as a build
    does."""
    home = tmp_path_factory.mktemp("conformance")

    @cache
    def write(artifact: Artifact, name: str) -> dict[str, tuple[Path, Graph]]:
        found = {}
        for recipe in RECIPES:
            folder = home / name_of(artifact) / recipe / name
            found[recipe] = folder, emit_floats(parts[name], replace(artifact, recipe=recipe), folder, open_batch=False)
        return found

    return lambda artifact, name, recipe: write(artifact, name)[recipe]


GRAPHS = range(4)  # the graphs of the model, in the order of its family


def nth(parts: dict[str, Component], number: int) -> str:
    return list(parts)[number]


# The record


@in_each_format
def test_a_record_is_complete(format: str) -> None:
    """Each function that is imported late exists, and the engine's facts are equal to the engine's own file."""
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


# Parity, bytes, contents


@cache
def outputs_of(part: Component, halved: bool) -> list[Array]:
    """Return the original's outputs, with its matrices rounded to float16 if `halved`."""
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
    """The model is opened again for the second one, so that no kept conversion is used."""
    artifact, name = find_backend(format).default, nth(parts, number)
    folder, graph = emitted(artifact, name, "fp16")
    again = emit_floats(
        read_parts(micro_checkpoint)[name], replace(artifact, recipe="fp16"), tmp_path, open_batch=False
    )
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
    emit_floats(matrix(tmp_path), replace(find_backend(format).default, recipe="fp16"), tmp_path, open_batch=False)
    assert capfd.readouterr() == ("", "")


# Intermediate outputs


@in_each_artifact
@pytest.mark.parametrize("number", GRAPHS)
def test_layers_of_an_artifact(
    artifact: Artifact, number: int, parts: dict[str, Component], emitted: Emitted, trajectory: Trajectory
) -> None:
    """All layers with a matrix are found, except positions that a converter looked up itself, and each one's output is
    the original's."""
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
