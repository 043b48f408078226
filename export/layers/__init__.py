"""The folder is the registry: layers/NAME.py finds, in an artifact of format NAME, the results that belong to the
original's modules.

    layers(path, weights) -> list[Layer]
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    """`module` is the original module, by its name; `result` is what the artifact calls the tensor that it gives."""

    module: str
    result: str
