"""The whole export: what it writes is always the same, says nothing of the machine, and is kept aside if it fails."""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from faults import weight

from pocketdiffusion import build
from pocketdiffusion.export import fitting
from pocketdiffusion.export.backends import emit as sound_emit
from pocketdiffusion.export.targets import load_target
from pocketdiffusion.runtime.bundle import list_files, open_bundle, open_unproven
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.manifest import Graph

ROOT = Path(__file__).parents[1]


def test_two_exports_of_a_model_are_one_bundle(tiny_bundle: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Another folder, another name for it: every file but the report and the manifest, which holds its hash."""
    moved = shutil.copytree(tiny_checkpoint, tmp_path / tiny_checkpoint.name)
    again = build.export(str(moved), "generic", tmp_path / "again", format="onnx")
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


def test_a_failed_export_is_kept_aside(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exporter that writes one channel of zeros: its bundle is not written where it was asked for."""

    def faulty(*arguments: Any, **options: Any) -> Graph:
        graph = sound_emit(*arguments, **options)
        if graph.spec.name == "vae_decoder":
            with weight(arguments[2], "vae_decoder", "decoder.conv_in.weight") as array:
                array[0] = 0
        return graph

    monkeypatch.setattr(fitting, "emit", faulty)
    with pytest.raises(ProofError, match=r"onnx vae_decoder.sample \(fp32\).*the bundle is kept as .*out\.failed"):
        build.export(str(tiny_checkpoint), "generic", tmp_path / "out", format="onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["out.failed"]
    verdicts = open_unproven(tmp_path / "out.failed").manifest.verdicts
    assert {v.subject for v in verdicts if not v.passed and v.rung != "pictures"} == {"vae_decoder.sample"}
    with pytest.raises(ProofError, match="vae_decoder.sample failed its proof"):
        open_bundle(tmp_path / "out.failed")


def test_float32_is_not_for_the_neural_engine() -> None:
    """It computes in float16 only, and the script for a Mac names the unit."""
    iphone = load_target("iphone-15")
    units = {recipe: build.choose(iphone, recipe, None, None).artifacts[0].compute_unit for recipe in (None, "fp32")}
    assert units == {None: "ane", "fp32": "gpu"}
