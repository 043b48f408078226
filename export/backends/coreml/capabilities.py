"""The iOS version that a Core ML package needs, and the compute units known to run it right or wrong.

Without a Mac our own executor of ML programs runs the packages, which proves only the file. On a Mac Core ML runs them,
on a compute unit that it chooses and does not report.
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
    """Return the engine that the package `path` needs: Core ML of the iOS version that its profile names, or newer."""
    system = platform.mac_ver()[0]
    return Engine(
        name="coreml", least_version=graph.profile.removeprefix("ios"), tried=f"macOS {system}" if system else None
    )


def units(path: Path, graph: Graph) -> dict[str, Unit]:
    """Return, for each compute unit of an Apple phone, whether it is known to run the package right."""
    system = platform.mac_ver()[0]
    note = ON_A_MAC.format(system=system) if system else NEVER_RUN.format(arithmetic=graph.arithmetic)
    unknown = Unit(status="unknown", evidence="none", note=note)
    neural = Unit(status="bad", evidence="published", note=NEEDS_FLOAT16) if graph.arithmetic == "float32" else unknown
    return {"cpu": unknown, "gpu": unknown, "ane": neural}
