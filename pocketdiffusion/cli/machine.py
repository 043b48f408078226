"""What of engines, toolchains and stand-ins a machine has. Nothing is started or loaded: versions, files, programs."""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pocketdiffusion.runtime.devices.packages import NAMES
from pocketdiffusion.runtime.devices.setup import missing_tools
from pocketdiffusion.runtime.devices.stamp import find_standin
from pocketdiffusion.runtime.errors import UserError

ENGINES = (
    ("onnxruntime", "runs ONNX", "pip install onnxruntime"),
    ("ai-edge-litert", "runs TFLite", "pip install 'pocketdiffusion[tflite]'"),
    ("coremltools", "reads Core ML", "pip install 'pocketdiffusion[coreml]'"),
    ("torch", "exports", "pip install 'pocketdiffusion[export]'"),
    ("diffusers", "exports", "pip install 'pocketdiffusion[export]'"),
    ("onnx", "exports ONNX", "pip install 'pocketdiffusion[export]'"),
    ("litert-torch", "exports TFLite", "pip install --no-deps -r requirements-tflite.txt"),
)
TOOLS = (
    ("xcrun", "compiles Core ML packages for Apple's pipeline", "Xcode, on a Mac"),
    ("java", "the Android demo's engine", "a JDK of version 17 or later"),
    ("swift", "the iOS demo's engine", "swift.org's toolchain"),
    ("adb", "puts bundles on an Android phone", "Android's platform tools"),
)
PURPOSES = {"arm64": "verify --device arm64", "gpu": "verify --device gpu"}


@dataclass(frozen=True)
class Finding:
    """`found` says what is there, "" where nothing is; `remedy` how to get it."""

    name: str
    found: str
    purpose: str
    remedy: str


def examine(standins: Path) -> Iterator[Finding]:
    """Engines and converters, then toolchains, then the stand-ins below the folder `standins`."""
    for name, purpose, remedy in ENGINES:
        yield Finding(name, _version(name), purpose, remedy)
    for name, purpose, remedy in TOOLS:
        yield Finding(name, shutil.which(name) or "", purpose, remedy)
    for name in NAMES:
        yield _standin(name, standins)


def _standin(name: str, standins: Path) -> Finding:
    try:
        return Finding(f"stand-in {name}", str(find_standin(standins, name)), PURPOSES[name], "")
    except UserError as error:
        _, _, remedy = str(error).rpartition(": ")
        missing = missing_tools(name)
        if sys.platform != "linux":
            remedy = "on Linux only"
        elif missing:
            remedy = f"{', '.join(missing)}, then {remedy}"
        return Finding(f"stand-in {name}", "", PURPOSES[name], remedy)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
