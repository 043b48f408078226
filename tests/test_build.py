"""The whole export: what it writes is always the same, says nothing of the machine, and is kept aside if it fails."""

import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.faults import weight

from pocketdiffusion import build
from pocketdiffusion.choices import ExportOptions, choose
from pocketdiffusion.export.backends import find_backend, tflite
from pocketdiffusion.export.backends.emission import emit as sound_emit
from pocketdiffusion.export.float16 import audit as fitting
from pocketdiffusion.export.original import Original, open_model
from pocketdiffusion.export.planning import check_recipes, plan_artifacts
from pocketdiffusion.export.targets import load_target
from pocketdiffusion.quantize.recipes import load_recipe
from pocketdiffusion.runtime.bundle.bundle import open_bundle, open_unproven
from pocketdiffusion.runtime.bundle.folder import list_files
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.errors import ProofError, UserError

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_two_exports_of_a_model_are_one_bundle(tiny_bundle: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Another folder, another name for it: every file but the report and the manifest, which holds its hash."""
    moved = shutil.copytree(tiny_checkpoint, tmp_path / tiny_checkpoint.name)
    again = build.export(str(moved), "generic", tmp_path / "again", ExportOptions(format="onnx"))
    first = open_bundle(tiny_bundle)
    assert again.manifest.bundle_id == first.manifest.bundle_id
    assert {path for path, entry in again.manifest.files.items() if entry != first.manifest.files[path]} <= {
        "report/report.html",
        "report/report.json",
    }


def test_no_file_says_where_it_was_made(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    places = [ROOT, Path.home(), Path(sys.prefix), Path(tempfile.gettempdir()), tiny_checkpoint, tiny_bundle]
    words = [str(place).encode() for place in places if len(place.parts) > 2]
    words += [b"site-packages", b"Traceback", b"stack_trace", b"torch/nn/modules", b".py:", b'.py", line']
    assert len(words) > 8
    for path in list_files(tiny_bundle):
        content = (tiny_bundle / path).read_bytes()
        found = [word for word in words if word in content]
        assert not found, f"{path} holds {found}"


@pytest.mark.slow
def test_a_failed_export_is_kept_aside(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exporter that writes one channel of zeros: its bundle is not written where it was asked for."""

    def faulty(*arguments: Any, **options: Any) -> Graph:
        graph = sound_emit(*arguments, **options)
        if graph.spec.name == "vae_decoder":
            with weight(arguments[2], "vae_decoder", "decoder.conv_in.weight") as array:
                array[0] = 0
        return graph

    monkeypatch.setattr(fitting, "emit", faulty)
    with pytest.raises(
        ProofError, match=r"onnx vae_decoder.sample \(fp32\).*The failed bundle is .*out\.failed: see its report"
    ):
        build.export(str(tiny_checkpoint), "generic", tmp_path / "out", ExportOptions(format="onnx"))
    assert [path.name for path in tmp_path.iterdir()] == ["out.failed"]
    verdicts = open_unproven(tmp_path / "out.failed").manifest.verdicts
    assert {v.subject for v in verdicts if not v.passed and v.rung != "pictures"} == {"vae_decoder.sample"}
    with pytest.raises(ProofError, match="vae_decoder.sample failed its proof"):
        open_bundle(tmp_path / "out.failed")


FOREIGN = '{"name": "mixed", "floors": {"graphs": {}, "pictures": [20, 9], "evidence": ""}, "schemes": {}}'


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({"recipe": "mixed"}, "needs exactly one of --budget-mb and --min-median-psnr"),
        ({"recipe": "mixed", "budget_mb": 0.0}, "--budget-mb 0 is not a positive number"),
        ({"recipe": "mixed", "min_psnr": float("nan")}, "--min-median-psnr nan is not a positive number"),
        ({"recipe": "w8", "budget_mb": 3.0}, "give --recipe mixed"),
        ({"recipe": "w8a16"}, "coreml ios16 cannot use the recipe w8a16"),
        ({"recipe": "w8a8"}, "coreml ios16 cannot use the recipe w8a8"),
        ({"recipe": "mine.json"}, "the recipe is for another model"),
        ({"out": "file"}, "file exists and is a file or a link"),
        ({"out": "folder"}, "folder exists and is not a folder that an export wrote"),
        ({"out": "file/out"}, "cannot write to"),
    ],
)
def test_mistakes_are_found_before_anything_is_drawn(
    options: dict[str, Any], refused: str, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three formats, where the first takes the recipe."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.json").write_text(FOREIGN)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/thesis.txt").touch()
    before, said = sorted(tmp_path.rglob("*")), list[str]()
    given = {"out": "out", **options}
    with pytest.raises(UserError, match=refused):
        build.export(
            str(tiny_checkpoint), "generic", Path(given.pop("out")), ExportOptions(**given), progress=said.append
        )
    assert said == [] and sorted(tmp_path.rglob("*")) == before


def test_no_artifact_is_planned_where_one_is_refused(tiny_checkpoint: Path) -> None:
    """Nothing is measured for the formats before it."""
    checkpoint, parts = open_model(str(tiny_checkpoint))
    artifacts, said = load_target("generic").artifacts, list[str]()
    with pytest.raises(UserError, match="coreml ios16 cannot use the recipe w8a8"):
        plan_artifacts(Original(checkpoint, parts, []), artifacts, [load_recipe("w8a8")] * 3, said.append)
    assert said == []


@pytest.mark.slow  # draws and measures on all search and calibration prompts
def test_what_recipes_ask_is_measured_once_for_all_formats(tiny_checkpoint: Path) -> None:
    checkpoint, parts = open_model(str(tiny_checkpoint))
    artifacts, said = [find_backend("onnx").default, find_backend("tflite").default], list[str]()
    plans = plan_artifacts(Original(checkpoint, parts, []), artifacts, [load_recipe("w8a8")] * 2, said.append)
    assert plans[0] == plans[1] and plans[0]["unet"].activation == "int8" and plans[0]["unet"].inputs
    assert len([line for line in said if "search prompts" in line]) == 1
    damages = [line for line in said if "single weights" in line]
    assert damages and len(set(damages)) == len(damages)


def test_float32_is_not_for_the_neural_engine() -> None:
    """It computes in float16 only, and the script for a Mac names the unit."""
    iphone = load_target("iphone-15")
    units = {recipe: choose(iphone, recipe, None, None).artifacts[0].compute_unit for recipe in (None, "fp32")}
    assert units == {None: "ane", "fp32": "gpu"}


def test_what_tflite_lacks_is_said_before_anything_is_drawn(
    micro_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its converter, and room in a file for a component's weights."""
    said = list[str]()

    def refused(recipe: str, words: str) -> None:
        with pytest.raises(UserError, match=words):
            build.export(
                str(micro_checkpoint),
                "galaxy-s24",
                tmp_path / "out",
                ExportOptions(recipe=recipe),
                progress=said.append,
            )
        assert not any("recording" in line or "writing" in line for line in said) and not list(tmp_path.iterdir())

    monkeypatch.setattr("pocketdiffusion.export.backends.tflite.BACKEND", replace(tflite.BACKEND, largest=2_000_000))
    refused("fp32", "tflite cannot store text_encoder with the recipe fp32: its weights are 0.0 GB, and a file holds")
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    refused("w8", "litert-torch, which is not installed: run pip install --no-deps -r requirements-tflite.txt")
    with pytest.raises(UserError, match="writing tflite needs litert-torch, which is not installed"):
        check_recipes([], [replace(find_backend("tflite").default, recipe="mixed")])
    check_recipes([], [find_backend("onnx").default, find_backend("coreml").default])
