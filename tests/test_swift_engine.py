"""ios_demo, the Swift engine, where a toolchain is: `make test-swift` sets one up and has more bundles."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from pocketdiffusion.runtime.bundle.bundle import Bundle

IOS = Path(__file__).parents[1] / "ios_demo"


def load(name: str) -> ModuleType:
    """A script of `ios_demo` as a module."""
    sys.path.insert(0, str(IOS))
    try:
        spec = importlib.util.spec_from_file_location(f"ios_{name}", IOS / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(IOS))


def run_tests(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the script, with other environment variables."""
    told = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    command = [sys.executable, str(IOS / "run_tests.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=told, timeout=800)


@pytest.fixture
def kit(tiny_bundle: Path, tmp_path: Path) -> Path:
    """As the reader's kit, of one bundle, with what Python draws."""
    folder = tmp_path / "kit"
    shutil.copytree(tiny_bundle, folder / "pndm")
    load("draw_requests").main(folder, [folder / "pndm"])
    return folder


def test_the_swift_engine_meets_its_tests(kit: Path, emoji_fp32: Bundle, emoji_split: Bundle) -> None:
    if load("run_tests").find_swift() is None:
        pytest.skip("not run: no Swift")
    done = run_tests("--required", "--quick", "--kit", kit, emoji_fp32.folder, emoji_split.folder)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " tests of ios_demo" in done.stdout


def test_without_swift_it_was_not_run(tiny_bundle: Path, tmp_path: Path) -> None:
    for options, code in (((), 0), (("--required",), 1)):
        done = run_tests(*options, "--kit", tmp_path, tiny_bundle, PATH=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
        assert (done.returncode, done.stdout, done.stderr) == (code, "not run: no Swift\n", "")


def test_no_test_is_no_success(tiny_bundle: Path, tmp_path: Path) -> None:
    """Where Swift ends well and has run nothing."""
    swift = tmp_path / "swift"
    swift.write_text("#!/bin/sh\necho 'Executed 0 tests, with 0 failures (0 unexpected) in 0.000 (0.000) seconds'\n")
    swift.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = run_tests("--quick", "--kit", tmp_path, tiny_bundle, PATH=path)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "not every test of ios_demo was run and passed"
