"""What the stand-ins are made of: packages.json has each package with the sha256 of its file.

The versions of what PyPI and npm give are those that runtime/devices/standins.py wants; these registries keep every
version. Debian keeps the newest of a release only: where it has moved on, the newer package is taken if its sha256 is
the one in Debian's signed index, and the installer prints that.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from pocketdiffusion.runtime.devices.standins import VERSIONS

DEBIAN = "trixie"  # the release of PYTHON, and the oldest whose qemu emulates /proc/cpuinfo, which onnxruntime reads


@dataclass(frozen=True)
class Package:
    """`registry` is "debian", "pypi" or "npm"; `machine` is Debian's word for a kind of processor."""

    standin: str
    registry: str
    name: str
    version: str
    sha256: str
    machine: str = ""


def packages_of(standin: str) -> tuple[Package, ...]:
    """Return the packages of `standin`, in the order of the table."""
    rows = json.loads(Path(__file__).with_name("packages.json").read_text())
    return tuple(
        Package(**{"version": VERSIONS[standin].get(row["name"]), **row}) for row in rows if row["standin"] == standin
    )
