"""The Android app's engine for TFLite: TensorFlow Lite of the version that android_demo is built with.

TensorFlow's package for computers has the same sources.
"""

import subprocess
import venv
from pathlib import Path

import pytest
from conftest import once

from pocketdiffusion.export.backends.tflite.capabilities import least_version
from pocketdiffusion.export.backends.tflite.file import read_model
from pocketdiffusion.runtime.devices.child import ChildRunner
from pocketdiffusion.runtime.devices.tensorflow_lite import launch_tensorflow
from pocketdiffusion.runtime.engines import tflite
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.runner import Runner

REQUIREMENTS = Path(__file__).parents[1] / "tensorflow.txt"


def version() -> str:
    """The version that `tensorflow.txt` pins."""
    pins = dict(line.split("==") for line in REQUIREMENTS.read_text().split())
    return pins["tensorflow_cpu"]


def is_for_it(path: Path) -> bool:
    """Whether the file is for this version, as the manifest's `engine.least_version` says."""
    return least_version(read_model(path)) <= tuple(int(part) for part in version().split("."))


@pytest.fixture(scope="session", name="tensorflow")
def install(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its Python, of an environment that is made here or before (`--tensorflow`). 1.1 GB of disk: the interpreter needs
    no more of TensorFlow's packages than these."""

    def make(folder: Path) -> None:
        venv.create(folder, with_pip=True)
        command: list[str | Path] = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*command, "--requirement", REQUIREMENTS], check=True)

    there: Path | None = request.config.getoption("--tensorflow")
    return (there.absolute() if there else once(tmp_path_factory, "tensorflow", make)) / "bin/python"


def open_there(python: Path, path: Path, spec: GraphSpec) -> Runner:
    """Raises ProofError where it does not open the file."""
    return ChildRunner(launch_tensorflow(python, 300), tflite.ENGINE.standin_runs["tensorflow"][0].engine, path, spec)
