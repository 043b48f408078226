"""android_demo/engine, the Kotlin engine, by Maven with few bundles: `make test-android` has more of them.

It draws with the built-in model in float32, whole and with a UNet of three graphs, and with `tiny_bundle`, which stands
for the reader's kit; all are exported for other tests as well.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from pocketdiffusion.runtime.bundle.bundle import Bundle

ANDROID = Path(__file__).parents[1] / "android_demo"


def load(name: str) -> ModuleType:
    """A script of `android_demo` as a module."""
    spec = importlib.util.spec_from_file_location(name, ANDROID / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_tests(*arguments: str | Path, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the script, where `path` is given with those programs alone."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **({} if path is None else {"PATH": path})}
    command = [sys.executable, str(ANDROID / "run_tests.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500)


@pytest.fixture
def kit(tiny_bundle: Path, tmp_path: Path) -> Path:
    """As the reader's kit, of one bundle, with what Python draws."""
    folder = tmp_path / "kit"
    load("draw_requests").main(folder, [tiny_bundle])
    shutil.copytree(tiny_bundle, folder / "pndm")
    return folder


def test_the_kotlin_engine_meets_its_tests(kit: Path, emoji_fp32: Bundle, emoji_split: Bundle) -> None:
    lacking = [program for program in ("javac", "mvn") if shutil.which(program) is None]
    if lacking:
        pytest.skip(f"not run: the Android engine's tests need {' and '.join(lacking)}")
    done = run_tests("--required", "--module", "engine", "--kit", kit, emoji_fp32.folder, emoji_split.folder)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "tests of android_demo/engine" in done.stdout


def test_without_maven_it_was_not_run(tiny_bundle: Path, tmp_path: Path) -> None:
    said = "not run: the Android engine's tests need javac and mvn\n"
    for options, code in (((), 0), (("--required",), 1)):
        done = run_tests(*options, "--kit", tmp_path, tiny_bundle, path=str(tmp_path))
        assert (done.returncode, done.stdout, done.stderr) == (code, said, "")


def test_no_test_is_no_success(tiny_bundle: Path, tmp_path: Path) -> None:
    """Where Maven ends well and has run nothing."""
    for name in ("javac", "mvn"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\nexit 0\n")
        program.chmod(0o755)
    done = run_tests("--module", "engine", "--kit", tmp_path, tiny_bundle, path=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "no test of android_demo/engine was run"
