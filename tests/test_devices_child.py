"""A graph in a child process: it answers as it would here, and however it ends badly, that is one line."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.tflite_files import Value, write_tflite

from pocketdiffusion.runtime.devices.child import ChildRunner, Launch
from pocketdiffusion.runtime.devices.frames import pack, unpack
from pocketdiffusion.runtime.engines.tflite import open_runner
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec

SPEC = GraphSpec("part", (TensorSpec("x", (1, 64), "float32"),), (TensorSpec("y", (1, 64), "float32"),))
HERE = Launch("child", (sys.executable, "-I", "-S"), tuple(filter(None, sys.path)), {}, 60)
ENGINE = "pocketdiffusion.runtime.engines.tflite"
X = np.random.default_rng(0).standard_normal((1, 64), np.float32)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("child") / "part.tflite"
    return write_tflite(path, (Value("x", (1, 64)), Value("y", (1, 64))), [("LOGISTIC", "x", "y")], "part")


def python(code: str, seconds: float = 60) -> Launch:
    return Launch("child", (sys.executable, "-c", code), (), {}, seconds)


def failure(launch: Launch, file: Path) -> str:
    with pytest.raises(ProofError) as caught:
        ChildRunner(launch, ENGINE, file, SPEC)
    message = str(caught.value)
    assert message.startswith("child: ") and "\n" not in message and "Traceback" not in message
    return message


@pytest.mark.parametrize("dtype", ["float32", "float16", "int32", "int64", "uint8"])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3, 4)])
def test_frames_hold_what_was_packed(dtype: str, shape: tuple[int, ...]) -> None:
    array = (9 * np.random.default_rng(1).random(shape)).astype(dtype)
    left = bytearray(pack({"fact": [1, "two"]}, {"a": array, "b": array.T}))

    def read(size: int) -> bytes:
        part, left[:] = bytes(left[:size]), left[size:]
        return part

    facts, arrays = unpack(read)
    assert facts == {"fact": [1, "two"]} and list(arrays) == ["a", "b"] and not left
    for given, found in ((array, arrays["a"]), (array.T, arrays["b"])):
        assert found.dtype == given.dtype and found.shape == given.shape and (found == given).all()


def test_it_gives_what_the_runner_gives_here(file: Path) -> None:
    child, here = ChildRunner(HERE, ENGINE, file, SPEC), open_runner(file, SPEC)
    for x in (X, 2 * X):
        assert child({"x": x})["y"].tobytes() == here({"x": x})["y"].tobytes()


def test_it_refuses_other_inputs_before_they_are_sent(file: Path) -> None:
    child = ChildRunner(HERE, ENGINE, file, SPEC)
    with pytest.raises(ValueError, match="part"):
        child({"x": X[:, 1:]})
    assert child({"x": X})["y"].shape == (1, 64)


def test_the_process_ends_with_the_runner(file: Path) -> None:
    child = ChildRunner(HERE, ENGINE, file, SPEC)
    process = child._process
    assert process.poll() is None
    del child
    assert process.poll() is not None


def test_what_the_runner_says_arrives(file: Path, tmp_path: Path) -> None:
    assert "LiteRT cannot load this file: No such file" in failure(HERE, tmp_path / "none.tflite")
    (tmp_path / "bad.tflite").write_bytes(file.read_bytes()[:40])
    assert "LiteRT cannot load this file" in failure(HERE, tmp_path / "bad.tflite")


def test_an_engine_that_breaks_is_named(file: Path) -> None:
    """Without its libraries the worker cannot even import numpy."""
    assert "ended with code 1: ModuleNotFoundError: No module named 'numpy'" in failure(replace(HERE, site=()), file)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os; os.kill(os.getpid(), 11)", "part crashed (SIGSEGV) without a message"),
        ("import os; os.abort()", "part crashed (SIGABRT)"),
        (
            "import sys; print('\\nno such core\\n', file=sys.stderr); sys.exit(3)",
            "part ended with code 3: no such core",
        ),
        ("pass", "part ended with code 0 without a message"),
        (
            "print('hello, hello, hello', flush=True); import time; time.sleep(60)",
            "part sent an answer that cannot be read",
        ),
    ],
)
def test_a_crash_is_one_line(code: str, said: str, file: Path) -> None:
    assert said in failure(python(code), file)


def test_a_crash_between_two_calls(file: Path) -> None:
    child = ChildRunner(HERE, ENGINE, file, SPEC)
    child._process.kill()
    child._process.wait()
    with pytest.raises(ProofError, match=r"^child: part crashed \(SIGKILL\)"):
        child({"x": X})


def test_a_hang_ends_when_the_time_is_over(file: Path) -> None:
    assert "part took longer than 1 s: raise --limit" in failure(python("import time; time.sleep(60)", 1), file)


def test_a_stand_in_that_is_not_there(file: Path) -> None:
    launch = replace(HERE, command=("/nowhere/qemu-aarch64",))
    assert failure(launch, file) == "child: cannot start /nowhere/qemu-aarch64: No such file or directory"
