"""What the stand-ins are made of: packages.json has each package with its version and the sha256 of its file.

The wheels are those of constraints.txt, for aarch64 (tests/test_devices_setup.py). PyPI and npm keep every version.
Debian keeps the newest of a release only: where it has moved on, the newer package is taken if its sha256 is that of
Debian's signed index, and `setup` says so.
"""

import json
from dataclasses import dataclass
from pathlib import Path

NAMES = ("arm64", "gpu")
PYTHON = "3.13"  # that of `DEBIAN`; the wheels are for it
DEBIAN = "trixie"  # the oldest release whose qemu emulates /proc/cpuinfo, which onnxruntime reads


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
    """In the order of the table."""
    rows = json.loads(Path(__file__).with_name("packages.json").read_text())
    return tuple(Package(**row) for row in rows if row["standin"] == standin)
