"""What a graph takes and gives: the contract between the exporter, the runners and the apps."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field

from pocketdiffusion.runtime.errors import UserError

Dim = int | str  # a name where the artifact leaves the dimension open, such as "batch"
DTYPES = ("float16", "float32", "int32", "int64", "uint8")


def _known(dtype: str) -> str:
    """Refuse, when a bundle is read, what this reader could not feed. Raises UserError, which names it."""
    if dtype not in DTYPES:
        raise UserError(f"the dtype {dtype!r} is not known to this pocketdiffusion: install a newer one")
    return dtype


@dataclass(frozen=True)
class TensorSpec:
    """One input or output. `dtype` is numpy's name for it, one of DTYPES."""

    name: Annotated[str, Field(description="the tensor's name")]
    shape: Annotated[
        tuple[Dim, ...],
        Field(
            description="its axes in order: a number, or a name where the caller chooses the length of the axis; the "
            "same name is the same number"
        ),
    ]
    dtype: Annotated[
        str, AfterValidator(_known), Field(description="numpy's name of its type", json_schema_extra={"enum": DTYPES})
    ]
    doc: Annotated[str, Field(description="what the values are, for people")] = ""


@dataclass(frozen=True)
class GraphSpec:
    """One graph, by the name that the program calls it by."""

    name: Annotated[str, Field(description="the graph's name, by which the pipeline calls it")]
    inputs: Annotated[tuple[TensorSpec, ...], Field(description="what it takes, in the file's order")]
    outputs: Annotated[tuple[TensorSpec, ...], Field(description="what it gives, in the file's order")]
