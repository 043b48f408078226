"""The folder is the registry: backends/NAME.py writes the artifacts of format NAME."""

from importlib import import_module
from pathlib import Path

from pocketdiffusion.export.component import Component
from pocketdiffusion.export.targets import Artifact
from pocketdiffusion.runtime.manifest import Graph


def emit(part: Component, artifact: Artifact, folder: Path, *, open_batch: bool) -> Graph:
    """Writes one artifact of `part` below `folder`/FORMAT. Raises ProofError where it is not what it should be."""
    backend = import_module(f"{__name__}.{artifact.format}")
    graph: Graph = backend.emit(part, artifact, folder, open_batch=open_batch)
    return graph
