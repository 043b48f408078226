"""Find installed engines, toolchains and stand-ins by versions, files and programs. Nothing is started or loaded."""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pocketdiffusion.cli.arguments import expand_home
from pocketdiffusion.export.backends import backend_names, find_backend
from pocketdiffusion.export.backends.backend import Package
from pocketdiffusion.runtime.devices.stamp import find_standin
from pocketdiffusion.runtime.devices.standins import load_standin, standin_names
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.tools.install import missing_tools

EXPORT = "pip install 'pocketdiffusion[export]'"
TOOLS = (
    ("xcrun", "compiles Core ML packages for Apple's pipeline", "Xcode, on a Mac"),
    ("java", "the Android demo's engine", "a JDK of version 17 or later"),
    ("swift", "the iOS demo's engine", "swift.org's toolchain"),
    ("adb", "puts bundles on an Android phone", "Android's platform tools"),
)


@dataclass(frozen=True)
class Finding:
    """A program or package that was looked for. `found`: its version or path, "" if it is not installed. `remedy`: how
    to install it."""

    name: str
    found: str
    purpose: str
    remedy: str


def examine(standins: Path) -> Iterator[Finding]:
    """Yield engines and converters, then toolchains, then the stand-ins in the folder `standins`."""
    packages = [package for format in backend_names() for package in find_backend(format).packages]
    for package in (*packages, *(Package(name, "exports", EXPORT) for name in ("torch", "diffusers"))):
        yield Finding(package.name, _version(package.name), package.purpose, package.install)
    for name, purpose, remedy in TOOLS:
        yield Finding(name, shutil.which(name) or "", purpose, remedy)
    for name in standin_names():
        yield _standin(name, standins)


def _standin(name: str, standins: Path) -> Finding:
    purpose = f"verify --device {name}: {load_standin(name).purpose}"
    try:
        return Finding(f"stand-in {name}", str(find_standin(expand_home(standins), name)), purpose, "")
    except UserError as error:
        _, _, remedy = str(error).rpartition(": ")
        missing = missing_tools(name)
        if sys.platform != "linux":
            remedy = "on Linux only"
        elif missing:
            remedy = f"{', '.join(missing)}, then {remedy}"
        return Finding(f"stand-in {name}", "", purpose, remedy)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
