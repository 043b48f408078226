"""Inputs and outputs of a graph: the contract between the exporter, the runners and the apps.

These are plain dataclasses, since the engines also run inside emulators of phones, where pydantic is not installed. The
metadata of the fields is for the JSON Schemas.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Dim = int | str  # a name where the artifact leaves the dimension open, such as "batch"
DTYPES = ("float16", "float32", "int32", "int64", "uint8")


def _told(description: str, **schema: Any) -> Mapping[str, Any]:
    return {"description": description, "json_schema_extra": schema} if schema else {"description": description}


@dataclass(frozen=True)
class TensorSpec:
    """One input or output. `dtype` is numpy's name for it, one of DTYPES."""

    name: str = field(metadata=_told("the tensor's name"))
    shape: tuple[Dim, ...] = field(
        metadata=_told(
            "its axes in order: a number, or a name where the caller chooses the length of the axis; the same name is "
            "the same number"
        )
    )
    dtype: str = field(metadata=_told("numpy's name of its type", enum=DTYPES))
    doc: str = field(default="", metadata=_told("what the values are, for people"))


@dataclass(frozen=True)
class GraphSpec:
    """One graph, by the name that the program calls it by."""

    name: str = field(metadata=_told("the graph's name, by which the pipeline calls it"))
    inputs: tuple[TensorSpec, ...] = field(metadata=_told("what it takes, in the file's order"))
    outputs: tuple[TensorSpec, ...] = field(metadata=_told("what it gives, in the file's order"))
