import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.traced_parts import artifact, component_of
from torch import nn

from pocketdiffusion.export.backends.onnx.emit import emit
from pocketdiffusion.runtime.engines.onnx import open_runner
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec

SPEC = GraphSpec("part", (TensorSpec("x", (1, 64), "float32"),), (TensorSpec("y", (1, 64), "float32"),))


@pytest.fixture(scope="module")
def emitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runner")
    part = component_of(folder, lambda: nn.Linear(64, 64), {"x": torch.randn(1, 64)}, {"y": (1, 64)}, {})
    return folder / emit(part, artifact(), folder, open_batch=False).path


@pytest.fixture
def copy(emitted: Path, tmp_path: Path) -> Path:
    shutil.copytree(emitted.parent, tmp_path / "copy")
    return tmp_path / "copy" / emitted.name


def test_runs_and_repeats_itself(emitted: Path) -> None:
    runner = open_runner(emitted, SPEC, threads=2)
    x = np.random.default_rng(0).standard_normal((1, 64), np.float32)
    first, second = runner({"x": x}), open_runner(emitted, SPEC, threads=2)({"x": x})
    assert list(first) == ["y"] and first["y"].shape == (1, 64) and first["y"].dtype == np.float32
    assert first["y"].tobytes() == second["y"].tobytes() == runner({"x": x})["y"].tobytes()
    assert runner.spec == SPEC


@pytest.mark.parametrize("inputs", [{}, {"x": np.zeros((1, 63), np.float32)}, {"x": np.zeros((1, 64))}, {"z": None}])
def test_refuses_other_inputs(emitted: Path, inputs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="part"):
        open_runner(emitted, SPEC)(inputs)


def corrupted(path: Path, how: str) -> None:
    data = path.parent / "model.onnx_data"
    if how == "garbage":
        path.write_bytes(b"no protobuf at all")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "missing":
        path.unlink()
    elif how == "short data":
        data.write_bytes(data.read_bytes()[:100])
    elif how == "no data":
        data.unlink()


@pytest.mark.parametrize("how", ["garbage", "empty", "half", "missing", "short data", "no data"])
def test_a_corrupt_file_is_one_line(copy: Path, how: str, capfd: pytest.CaptureFixture[str]) -> None:
    corrupted(copy, how)
    with pytest.raises(ProofError) as caught:
        open_runner(copy, SPEC)
    message = str(caught.value)
    assert message.startswith(f"{copy}: onnxruntime cannot load this file: ")
    assert "\n" not in message and "::" not in message and ".cc" not in message and len(message) < 400
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"inputs": (TensorSpec("x", (1, 65), "float32"),)}, r"inputs are x float32\[1, 64\], not x float32\[1, 65\]"),
        ({"inputs": (TensorSpec("x", ("batch", 64), "float32"),)}, r"not x float32\['batch', 64\]"),
        ({"inputs": (*SPEC.inputs, TensorSpec("t", (1,), "float32"))}, "inputs are"),
        ({"outputs": (TensorSpec("z", (1, 64), "float32"),)}, "outputs are y"),
        ({"outputs": (TensorSpec("y", (1, 64), "float16"),)}, "outputs are y float32"),
    ],
)
def test_a_file_that_is_not_what_the_spec_says(emitted: Path, changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ProofError, match=words):
        open_runner(emitted, replace(SPEC, **changed))


def test_a_missing_engine(emitted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="pip install onnxruntime"):
        open_runner(emitted, SPEC)


def test_needs_no_torch(emitted: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from pathlib import Path\n"
        "from pocketdiffusion.runtime.engines.onnx import open_runner\n"
        "assert 'onnxruntime' not in sys.modules\n"
        "from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec\n"
        f"open_runner(Path({str(emitted)!r}), {SPEC!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
