"""The folder is the registry: engines/NAME.py runs the artifacts of format NAME, and defines

ENGINE: EngineFacts                  facts on the engine that can be read without it
open_runner(path, spec) -> Runner

A file without `ENGINE` is no engine: facts.py is the record, io_adapter.py converts tensors, mlprogram/ is the executor
behind coreml.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from pocketdiffusion.runtime.bundle.bundle import Bundle
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.engines.facts import EngineFacts
from pocketdiffusion.runtime.engines.io_adapter import AdaptedRunner
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.memory import returning_large_blocks
from pocketdiffusion.runtime.runner import Runner

Opener = Callable[[Bundle, str, str], Runner]  # opens a graph of a bundle, as `open_graph` does


def engine_names() -> list[str]:
    """Return the formats that have an engine, in alphabetical order."""
    return sorted(module.name for module in iter_modules(__path__) if find_engine(module.name) is not None)


def find_engine(format: str) -> EngineFacts | None:
    """Return the facts on the engine of `format`, None if it has none."""
    if format not in {module.name for module in iter_modules(__path__) if not module.ispkg}:
        return None
    facts: EngineFacts | None = getattr(import_module(f"{__name__}.{format}"), "ENGINE", None)
    return facts


def graph_format(bundle: Bundle, wanted: str | None = None) -> str:
    """Return `wanted`, by default the bundle's first format. Raise UserError if the bundle does not have it."""
    formats = list(bundle.manifest.graphs)
    if wanted is None:
        return formats[0]
    if wanted not in formats:
        raise UserError(f"{bundle.folder} has no {wanted} artifacts: choose {' or '.join(formats)}")
    return wanted


def open_graph(bundle: Bundle, name: str, format: str) -> Runner:
    """Load one artifact of a bundle. Raise UserError if the engine is not installed, ProofError if it cannot load the
    file or the bundle has no such graph."""
    return load_runner(bundle.folder, format, find_graph(bundle, name, format))


def find_graph(bundle: Bundle, name: str, format: str) -> Graph:
    """Return the manifest's record of one artifact. Raise ProofError if there is none."""
    graphs = bundle.manifest.graphs[format]
    if name not in graphs:
        raise ProofError(f"{bundle.folder} has no {format} graph {name}: export the model again")
    return graphs[name]


def load_runner(folder: Path, format: str, graph: Graph) -> Runner:
    """Load one artifact below `folder`, as `open_graph` does, before it belongs to a bundle."""
    module = import_module(f"pocketdiffusion.runtime.engines.{format}")
    with returning_large_blocks():
        runner: Runner = module.open_runner(folder / graph.path, graph.file_spec or graph.spec)
    return runner if graph.file_spec is None else AdaptedRunner(graph.spec, runner, graph.transposes)
