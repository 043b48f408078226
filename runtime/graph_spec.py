"""What a graph takes and gives: the contract between the exporter, the runners and the apps."""

from dataclasses import dataclass

Dim = int | str  # a name where the artifact leaves the dimension open, such as "batch"


@dataclass(frozen=True)
class TensorSpec:
    """One input or output. `dtype` is numpy's name for it: "float32", "float16", "int32", "int64"."""

    name: str
    shape: tuple[Dim, ...]
    dtype: str
    doc: str = ""


@dataclass(frozen=True)
class GraphSpec:
    """One graph, by the name that the program calls it by."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
