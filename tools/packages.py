"""The packages of the stand-ins. The table packages.json has the sha256 of each package's file.

Packages of PyPI and npm, which keep every version, have the versions of runtime/devices/standins. Debian keeps only
the newest version of a release: if it is newer than the table's, it is accepted if its sha256 equals the sha256 in
Debian's signed index, and the installer prints that.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from pocketdiffusion.runtime.devices.standins import load_standin

DEBIAN = "trixie"  # the release of PYTHON, and the oldest whose qemu emulates /proc/cpuinfo, which onnxruntime reads


@dataclass(frozen=True)
class Package:
    """`registry` is "debian", "pypi" or "npm"; `machine` is Debian's name of a processor architecture."""

    standin: str
    registry: str
    name: str
    version: str
    sha256: str
    machine: str = ""


def packages_of(standin: str) -> tuple[Package, ...]:
    """Return the packages of `standin`, in the order of the table."""
    rows = json.loads(Path(__file__).with_name("packages.json").read_text())
    versions = load_standin(standin).versions
    return tuple(Package(**{"version": versions.get(row["name"]), **row}) for row in rows if row["standin"] == standin)
