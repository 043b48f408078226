"""The folder is the registry: layers/NAME.py finds the layers of the artifacts of format NAME, and holds

layers(path, weights) -> list[Layer]    in the order in which they are run; `weights` are the original's names
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    """`module` is the original's path of a module that has a matrix, `result` the artifact's name of the output of the
    operator that takes it."""

    module: str
    result: str
