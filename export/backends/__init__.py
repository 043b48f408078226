"""The folder is the registry: backends/NAME.py writes the artifacts of format NAME, and holds

emit(part, artifact, folder, open_batch) -> Graph
LARGEST                                             bytes of weights that an artifact may have, None for any number
"""

from importlib import import_module
from math import prod
from pathlib import Path

from pocketdiffusion.export.component import Component
from pocketdiffusion.export.targets import Artifact
from pocketdiffusion.runtime.manifest import Graph


def emit(part: Component, artifact: Artifact, folder: Path, *, open_batch: bool) -> Graph:
    """Writes one artifact of `part` below `folder`/FORMAT. Raises ProofError where it is not what it should be."""
    backend = import_module(f"{__name__}.{artifact.format}")
    graph: Graph = backend.emit(part, artifact, folder, open_batch=open_batch)
    return graph


def holds_float32(part: Component, format: str) -> bool:
    """Whether an artifact of that format can have the component's weights in float32."""
    largest: int | None = import_module(f"{__name__}.{format}").LARGEST
    return largest is None or sum(4 * prod(ref.shape) for ref in part.weights.values()) <= largest
