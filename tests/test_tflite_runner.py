import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.tflite_files import Value, write_tflite

from pocketdiffusion.runtime.engines.tflite import open_runner
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec

SPEC = GraphSpec("part", (TensorSpec("x", (1, 64), "float32"),), (TensorSpec("y", (1, 64), "float32"),))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runner") / "part.tflite"
    return write_tflite(path, (Value("x", (1, 64)), Value("y", (1, 64))), [("LOGISTIC", "x", "y")], "part")


def test_runs_and_repeats_itself(file: Path) -> None:
    runner = open_runner(file, SPEC, threads=2)
    x = np.random.default_rng(0).standard_normal((1, 64), np.float32)
    first, second = runner({"x": x}), open_runner(file, SPEC, threads=1)({"x": x})
    np.testing.assert_allclose(first["y"], 1 / (1 + np.exp(-x)), atol=1e-6)
    assert list(first) == ["y"] and first["y"].dtype == np.float32
    assert first["y"].tobytes() == second["y"].tobytes() == runner({"x": x})["y"].tobytes()
    assert runner.spec == SPEC


def test_outputs_outlive_the_next_call(file: Path) -> None:
    runner = open_runner(file, SPEC)
    first = runner({"x": np.zeros((1, 64), np.float32)})["y"]
    runner({"x": np.full((1, 64), 9, np.float32)})
    assert (first == 0.5).all()


@pytest.mark.parametrize("inputs", [{}, {"x": np.zeros((1, 63), np.float32)}, {"x": np.zeros((1, 64))}, {"z": None}])
def test_refuses_other_inputs(file: Path, inputs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="part"):
        open_runner(file, SPEC)(inputs)


@pytest.mark.parametrize("how", ["garbage", "empty", "half", "missing", "another signature"])
def test_a_corrupt_file_is_one_line(file: Path, tmp_path: Path, how: str) -> None:
    path, spec = tmp_path / "part.tflite", SPEC
    if how == "garbage":
        path.write_bytes(b"no flatbuffer at all")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "half":
        path.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif how == "another signature":
        path.write_bytes(file.read_bytes())
        spec = replace(SPEC, name="other")
    with pytest.raises(ProofError) as caught:
        open_runner(path, spec)
    message = str(caught.value)
    assert message.startswith(f"{path}: LiteRT cannot load this file: ")
    assert "\n" not in message and ".cc" not in message and len(message) < 400


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"inputs": (TensorSpec("x", (1, 65), "float32"),)}, r"inputs are x float32\[1, 64\], not x float32\[1, 65\]"),
        ({"inputs": (*SPEC.inputs, TensorSpec("t", (1,), "float32"))}, "inputs are"),
        ({"outputs": (TensorSpec("z", (1, 64), "float32"),)}, "outputs are y"),
        ({"outputs": (TensorSpec("y", (1, 64), "float16"),)}, "outputs are y float32"),
    ],
)
def test_a_file_that_is_not_what_the_spec_says(file: Path, changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ProofError, match=words):
        open_runner(file, replace(SPEC, **changed))


def test_a_missing_engine(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(UserError, match="pip install ai-edge-litert"):
        open_runner(file, SPEC)


def test_needs_no_torch(file: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from pathlib import Path\n"
        "from pocketdiffusion.runtime.engines.tflite import open_runner\n"
        "assert 'ai_edge_litert' not in sys.modules\n"
        "from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec\n"
        f"open_runner(Path({str(file)!r}), {SPEC!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
