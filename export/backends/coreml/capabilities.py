"""What Core ML packages ask of a system, and on which compute units they are known good or bad.

All that this project knows of it is here. Without a Mac our own executor of ML programs runs the packages, and proves
the file alone; on a Mac Core ML does, and takes whichever unit it likes.
"""

import platform
from pathlib import Path

from pocketdiffusion.runtime.bundle.graph_needs import Engine, Unit
from pocketdiffusion.runtime.bundle.manifest import Graph

NEVER_RUN = "the gate's own executor of ML programs ran the package in {arithmetic}; Core ML itself was not at hand"
ON_A_MAC = "the gate ran the package by Core ML of macOS {system}, which does not tell on which unit"
NEEDS_FLOAT16 = (
    "Apple's Neural Engine computes in float16 alone, and this program is of float32: Core ML runs it elsewhere"
)


def needs(path: Path, graph: Graph) -> Engine:
    """Return what the package `path` asks of iOS: `profile` is the oldest that takes it."""
    system = platform.mac_ver()[0]
    return Engine(
        name="coreml", least_version=graph.profile.removeprefix("ios"), tried=f"macOS {system}" if system else None
    )


def units(path: Path, graph: Graph) -> dict[str, Unit]:
    """Return what is known of the package on each unit of an Apple phone."""
    system = platform.mac_ver()[0]
    note = ON_A_MAC.format(system=system) if system else NEVER_RUN.format(arithmetic=graph.arithmetic)
    unknown = Unit(status="unknown", evidence="none", note=note)
    neural = Unit(status="bad", evidence="published", note=NEEDS_FLOAT16) if graph.arithmetic == "float32" else unknown
    return {"cpu": unknown, "gpu": unknown, "ane": neural}
