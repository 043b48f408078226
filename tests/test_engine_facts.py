"""What is said of an engine comes from its own record: that of a format which no file of the product knows is read
too."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.sample_bundle import write_sample
from support.toys import registered

from pocketdiffusion.runtime import engines
from pocketdiffusion.runtime.bundle.graph_needs import Engine
from pocketdiffusion.runtime.bundle.manifest import Graph, UnsealedManifest
from pocketdiffusion.runtime.verify.settings import engine_faults
from pocketdiffusion.runtime.verify.skipped import units_not_run

SOURCE = """
from pocketdiffusion.runtime.engines.facts import EngineFacts

ENGINE = EngineFacts("toyengine", absent={"gpu": "there is no GPU here"}, processor_code=True, same_versions=True)
"""


@pytest.fixture(autouse=True)
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with registered(engines, "toy", SOURCE, tmp_path_factory.mktemp("toy")):
        yield


def draft(folder: Path, format: str, unit: str) -> UnsealedManifest:
    sample = write_sample(folder)
    graphs = {name: each.model_copy(update={"compute_unit": unit}) for name, each in sample.graphs["onnx"].items()}
    return sample.model_copy(update={"graphs": {format: graphs}})


@pytest.mark.parametrize(
    ("format", "unit", "reason"),
    [
        ("onnx", "npu", "Qualcomm's QNN is not on this machine"),
        ("toy", "npu", None),  # its own engine ran the graphs
        ("toy", "gpu", "there is no GPU here"),
        ("onnx", "gpu", None),
        ("unheard", "npu", None),
    ],
)
def test_a_unit_is_not_run_where_the_format_s_engine_says_so(
    format: str, unit: str, reason: str | None, tmp_path: Path
) -> None:
    rows = units_not_run(draft(tmp_path, format, unit))
    assert [(row.format, row.device) for row in rows] == ([] if reason is None else [(format, unit)])
    assert all(row.reason.startswith(str(reason)) for row in rows)


def graph(folder: Path, name: str, **fields: Any) -> Graph:
    engine = Engine(name=name, least_version="1.2", tried="1.3")
    return write_sample(folder).graphs["onnx"]["unet"].model_copy(update={"engine": engine, **fields})


@pytest.mark.parametrize(
    ("format", "engine", "processors", "said"),
    [
        ("toy", "toyengine", ("SM8650",), None),
        ("toy", "toyengine", None, "compiled_for names no processor, and toy files hold a processor's own code"),
        ("toy", "toyengine", (), "compiled_for names no processor, and toy files hold a processor's own code"),
        ("onnx", "onnxruntime", None, None),
        ("onnx", "onnxruntime", ("SM8650",), "compiled_for must be null: onnx files hold no processor's own code"),
    ],
)
def test_processors_are_named_where_files_hold_their_code(
    format: str, engine: str, processors: tuple[str, ...] | None, said: str | None, tmp_path: Path
) -> None:
    found = list(engine_faults(format, graph(tmp_path, engine, compiled_for=processors)))
    assert found == ([] if said is None else [said])


def test_versions_are_compared_where_they_are_of_one_library(tmp_path: Path) -> None:
    newer = Engine(name="toyengine", least_version="2.0", tried="1.3")
    given = graph(tmp_path, "toyengine", compiled_for=("SM8650",)).model_copy(update={"engine": newer})
    assert list(engine_faults("toy", given)) == ["engine.least_version is 2.0, and 1.3 ran the file"]
    assert list(engine_faults("tflite", given.model_copy(update={"compiled_for": None}))) == [
        "engine is toyengine, and tflite is read by litert"
    ]
