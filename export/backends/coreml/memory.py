"""The memory that a Core ML package needs, counted from its ML program and not measured."""

from pathlib import Path

import numpy as np

from pocketdiffusion.export.backends.live_tensors import Operation, largest_live
from pocketdiffusion.runtime.bundle.graph_needs import Memory
from pocketdiffusion.runtime.engines.mlprogram.constants import Blob, TensorType
from pocketdiffusion.runtime.engines.mlprogram.program import read_program

_RESHAPES = {"reshape", "expand_dims", "squeeze"}
_COUNTED = (
    "weights: whole, in the type that the program computes in, also those that the file has compressed; whether Core "
    "ML keeps them compressed on a unit is not known"
)


def count_memory(path: Path) -> Memory:
    """Return the memory in bytes that the program in the package `path` needs for weights and activations. The values
    of the weights are not read."""
    program = read_program(path)
    sizes = {name: _bytes(kind) for name, kind in program.inputs.items()}
    weights: dict[str, int] = {}
    operations = []
    for operation in program.operations:
        writes = {result.name: _bytes(result.type) for result in operation.results}
        if operation.kind.startswith("constexpr_"):
            weights |= writes
            continue
        for key, name in operation.constants.items():
            (value, *_) = operation.arguments[key]
            if isinstance(value, Blob):
                weights[name] = _bytes(value.type)
            elif isinstance(value, np.ndarray):
                weights[name] = value.nbytes
        sizes |= writes
        reads = [*operation.uses]
        first = next(iter(operation.arguments.get("x", ())), None)
        reads.sort(key=lambda name: name != getattr(first, "name", None))
        operations.append(Operation(tuple(reads), tuple(writes), operation.kind in _RESHAPES and bool(reads)))
    return Memory(
        weights_bytes=sum(weights.values()),
        activations_bytes=largest_live(operations, sizes, list(program.inputs), program.outputs),
        counted=_COUNTED,
    )


def _bytes(kind: TensorType) -> int:
    return int(np.prod(kind.shape, dtype=np.int64)) * kind.stored.itemsize
