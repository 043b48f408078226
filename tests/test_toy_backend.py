"""A format that no file of the product knows, toy_backend/: found by the registries, it is exported, judged, compared
and drawn with."""

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest

from pocketdiffusion.build import export
from pocketdiffusion.checkpoint_outline import read_outline
from pocketdiffusion.choices import ExportOptions, choose
from pocketdiffusion.cli.json_output import plan_record
from pocketdiffusion.cli.plan import describe_plan
from pocketdiffusion.compare import compare_two
from pocketdiffusion.estimates import plan_export
from pocketdiffusion.export import backends
from pocketdiffusion.export.backends.emission import find_refusal
from pocketdiffusion.export.targets import load_target
from pocketdiffusion.quantize.scheme import Scheme
from pocketdiffusion.runtime import engines
from pocketdiffusion.runtime.bundle.bundle import Bundle, open_bundle
from pocketdiffusion.runtime.bundle.sealing import seal
from pocketdiffusion.runtime.bundle.verdicts import first_to_report
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.pipeline import draw
from pocketdiffusion.runtime.verify.gate import judge
from pocketdiffusion.runtime.verify.golden import read_golden

pytestmark = pytest.mark.slow
HOME = Path(__file__).parent / "toy_backend"


AT_START = """
from pocketdiffusion.runtime import engines
engines.__path__.append({folder!r})
"""


@pytest.fixture(scope="module", autouse=True)
def registered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The folder is the registry: its two files lie in the packages' paths while these tests run, in this process and,
    by Python's own sitecustomize, in the one in which `compare` measures memory."""
    start = tmp_path_factory.mktemp("start")
    (start / "sitecustomize.py").write_text(AT_START.format(folder=str(HOME / "engines")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(start), os.environ.get("PYTHONPATH")])))
        patch.setattr(backends, "__path__", [*backends.__path__, str(HOME / "backends")])
        patch.setattr(engines, "__path__", [*engines.__path__, str(HOME / "engines")])
        yield
    for name in [name for name in sys.modules if ".backends.toy" in name or name.endswith(".engines.toy")]:
        del sys.modules[name]
    for package in (backends, engines):
        vars(package).pop("toy", None)


@pytest.fixture(scope="module")
def bundle(registered: None, micro_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(
        str(micro_checkpoint), "generic", tmp_path_factory.mktemp("toy") / "bundle", ExportOptions(format="toy")
    )


def test_it_is_found_by_its_folder() -> None:
    assert backends.backend_names() == ["coreml", "onnx", "tflite", "toy"]
    assert engines.engine_names() == backends.backend_names()
    with pytest.raises(UserError, match="there is no format toi: did you mean toy"):
        choose(load_target("generic"), None, "toi", None)


def test_a_plan_says_that_it_was_not_measured() -> None:
    """It has no costs.json. Beside it, a format that was measured is still estimated."""
    generic = load_target("generic")
    toy = choose(generic, None, "toy", None)
    both = replace(generic, artifacts=(generic.artifacts[0], *toy.artifacts))
    plans = [plan_export(read_outline("emoji"), target) for target in (toy, both)]
    assert [plan.cpu_seconds for plan in plans] == [None, None]
    assert plans[0].memory_bytes == {"toy": None} and (plans[1].memory_bytes["onnx"] or 0) > 1e6
    assert sum(part.nbytes for part in plans[0].parts) > 1e6 and plan_record(plans[0])["not_measured"] == ("toy",)
    said = describe_plan(plans[1])
    assert "not measured: the memory on the phone in toy, whose backend has no costs.json" in said
    assert said[-1] == "not measured: the time of an export to toy"


def test_it_is_exported_and_judged(bundle: Bundle) -> None:
    found = open_bundle(bundle.folder).manifest
    assert list(found.graphs) == ["toy"] and {graph.recipe for graph in found.graphs["toy"].values()} == {"fp16"}
    assert {"rewrites", "fp32", "rounding", "fp16", "pictures"} <= {verdict.rung for verdict in found.verdicts}
    assert all(verdict.passed for verdict in found.verdicts)
    assert all(graph.layers and graph.units["cpu"].status == "good" for graph in found.graphs["toy"].values())
    verdicts, pictures = judge(bundle, read_golden(bundle))
    assert pictures and all(verdict.passed for verdict in verdicts)


def test_it_draws(bundle: Bundle) -> None:
    picture = draw(bundle, "red apple", steps=2)
    assert picture.ndim == 3 and picture.dtype == np.uint8 and picture.std() > 0


def test_it_is_compared_layer_by_layer(bundle: Bundle, micro_checkpoint: Path) -> None:
    facts: Any = {"prompts": ["red apple"], "seed": 3, "steps": 2, "guidance": 5.0, "format": None, "budget": None}
    facts |= {"revision": None, "token": None}
    found = compare_two(str(micro_checkpoint), str(bundle.folder), **facts, progress=lambda line: None)
    assert found.difference.lowest_db > 45 and not found.first_bad_layer
    assert {error.graph for error in found.layers} == bundle.manifest.graphs["toy"].keys()


def test_a_wrong_file_is_blamed(bundle: Bundle, tmp_path: Path) -> None:
    copy = copytree(bundle.folder, tmp_path / "bundle")
    (name,) = [n for n, graph in bundle.manifest.graphs["toy"].items() if "timestep" in str(graph.spec.inputs)]
    path = copy / f"toy/{name}.npz"
    arrays = dict(np.load(path))
    largest = max((key for key in arrays if arrays[key].ndim > 1), key=lambda key: arrays[key].size)
    arrays[largest][0] = 0
    np.savez(path, allow_pickle=False, **arrays)
    with pytest.raises(ProofError, match=path.name):
        open_bundle(copy)
    seal(copy, bundle.manifest)
    verdicts, _ = judge(Bundle(copy, bundle.manifest), read_golden(bundle))
    failed = [verdict for verdict in verdicts if not verdict.passed]
    assert failed and first_to_report(failed).subject.startswith(name) and "toy" in first_to_report(failed).describe()


def test_a_recipe_that_it_cannot_hold_is_refused(micro_checkpoint: Path, tmp_path: Path) -> None:
    refusal = find_refusal([Scheme("linear", 8)], "toy", "plain")
    assert refusal is not None and refusal.nearest == "fp16"
    with pytest.raises(UserError, match="toy plain cannot use the recipe w8: a toy has floats only; the nearest is"):
        export(str(micro_checkpoint), "generic", tmp_path / "out", ExportOptions(format="toy", recipe="w8"))
    assert not list(tmp_path.iterdir())
