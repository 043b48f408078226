"""Records of one artifact: the part for running it, and the part for judging it."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pocketdiffusion.runtime.bundle.graph_needs import Engine, Memory, Unit
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.graph_spec import DTYPES, GraphSpec
from pocketdiffusion.runtime.record import INFORMS, BundlePath, Count, Record


class ExternalData(Record):
    """A file of weights beside a graph."""

    location: str = Field(description="the name under which the graph looks for it")
    path: BundlePath = Field(description="where it lies in the bundle")


class PipelineGraph(Record):
    """One artifact, as whoever runs it needs it: this part is in the pipeline file.

    `storage`: how the matrices are stored, not counting islands of float: "int8", "palette6", or "mixed" for several;
    "float16" if some matrices are float16 and all others float32. A lossy recipe has floors of its own: `floor_db` for
    the outputs of this graph, `picture_floors_db` for pictures; the evidence for them is in the recipe.
    """

    path: BundlePath = Field(description="what the engine opens: a file, or for Core ML the folder of the package")
    files: tuple[BundlePath, ...] = Field(
        description="all files that it consists of, `path` among them or the folder that holds them"
    )
    external_data: tuple[ExternalData, ...] = Field(
        default=(), description="ONNX: files of weights, which an engine without a file system must be told of"
    )
    spec: GraphSpec = Field(description="its inputs and outputs in the pipeline's own convention (NCHW)")
    profile: str = Field(description="the dialect of the format that it is written in, such as ort, std or ios17")
    recipe: str = Field(description="the name of the recipe by which weights are stored")
    storage: Annotated[str, Field(pattern=r"^(float(16|32)|int[2-8]|palette[1-8]|mixed)$"), INFORMS] = Field(
        description="how the matrices are stored: float32, float16, int or palette with a number of bits, or mixed"
    )
    arithmetic: Annotated[Literal["float32", "float16", "int8", "int16"], INFORMS] = Field(
        description="what convolutions and matrix products compute in"
    )
    compute_unit: str = Field(description="the unit of the phone that it was made for: cpu, gpu, ane or npu")
    transposes: dict[str, tuple[Count, ...]] = Field(
        default={},
        description="for each tensor of `spec` that the file lays out otherwise, the order of its axes there, as "
        "numpy.transpose takes it; axes of size 1 are added or dropped after that",
    )
    file_spec: GraphSpec | None = Field(
        default=None,
        description="where the file's own inputs and outputs differ from `spec`: the tensors of `spec` in the same "
        "order, under the file's names, in its shapes and dtypes; null where they do not differ",
    )
    engine: Annotated[
        Engine | None, Field(description="What reads the file, and the least that it must know; null: not stated.")
    ] = None
    memory: Annotated[
        Memory | None, Field(description="What it takes of a phone's memory, counted; null: not stated.")
    ] = None
    units: Annotated[
        dict[str, Unit],
        Field(
            description="What is known of it on each compute unit, by the unit: `cpu`, `gpu`, `npu` (Qualcomm's), "
            "`ane` (Apple's), `webgpu` (a browser's). One that is not here is not known."
        ),
    ] = {}
    floor_db: float | None = Field(
        default=None, description="the floor of its outputs in dB, where the recipe has its own"
    )
    picture_floors_db: tuple[float, float] | None = Field(
        default=None, description="the floors of pictures in dB, median and minimum, where the recipe has its own"
    )
    parts: tuple[BundlePath, ...] | None = Field(
        default=None, description="reserved: the files of a graph that is run in several parts; null: it is one"
    )
    compiled_for: tuple[str, ...] | None = Field(
        default=None,
        description="reserved: the processors whose own code the file holds (a context binary), each by what its name "
        "in the phone's system begins with, such as SM8650; null: it holds no such code",
    )

    @model_validator(mode="after")
    def _has_known_dtypes(self) -> Self:
        """Raise UserError, which names it, if this reader cannot run a graph with a dtype of these."""
        tensors = (*self.spec.inputs, *self.spec.outputs)
        if self.file_spec is not None:
            tensors += (*self.file_spec.inputs, *self.file_spec.outputs)
        for tensor in tensors:
            if tensor.dtype not in DTYPES:
                raise UserError(
                    f"the dtype {tensor.dtype!r} of {self.spec.name}'s {tensor.name} is not known to this "
                    "pocketdiffusion: install a newer one"
                )
        return self


class GraphProof(Record):
    """One artifact, as whoever judges it needs it: this part is in proof.json."""

    rewrites: dict[str, Count] = Field(default={}, description="how many sites each rewrite changed, by its name")
    ops: dict[str, Count] = Field(default={}, description="how many operators of each kind the file holds")
    parameters: Count = Field(default=0, description="numbers in its weights")
    stored: dict[str, Count] = Field(default={}, description="how many matrices are stored in each kind of storage")
    layers: tuple[tuple[str, str], ...] = Field(
        default=(),
        description="for each module of the original that has a matrix, the file's own result of it, in the order of "
        "execution: by it a layer can be blamed",
    )
    layer_exponents: Annotated[
        dict[str, int],
        Field(
            description="For modules of `layers` whose result in the file is 2^-e times the original's, since weights "
            "were multiplied by powers of two to stay within float16: e. Modules that are not here have 0."
        ),
    ] = {}


class Graph(PipelineGraph, GraphProof):
    """One artifact: both parts in one record."""
