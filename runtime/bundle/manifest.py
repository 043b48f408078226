"""What a bundle says of itself, as one record in memory. Apps take every constant from it.

On disk it lies in three kinds of JSON file (layout.py): manifest.json, the index; pipeline/FORMAT.json, all that
changes a picture; proof.json, how the bundle was judged. docs/BUNDLE.md tells readers in other languages what to do
with them.

Every path is relative to the bundle, with "/" between parts made of [A-Za-z0-9._-]. JSON has no word for numbers
that are not finite: in verdicts and the scheduler's settings they are the strings "Infinity", "-Infinity" and "NaN",
elsewhere they are refused. Seeds are strings.
"""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from pocketdiffusion.runtime.bundle.file_table import FileEntry, bundle_id, check_table, runtime_id
from pocketdiffusion.runtime.bundle.graph_needs import Engine, Memory, Unit
from pocketdiffusion.runtime.bundle.record import (
    INFORMS,
    AnyFloat,
    ArrayRef,
    BundlePath,
    Count,
    Record,
    Seed,
    Sha256,
    Size,
)
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.graph_spec import DTYPES, GraphSpec
from pocketdiffusion.runtime.program import Constant, Program
from pocketdiffusion.runtime.sampling.stored_tables import TableFile

VERSION, MINOR = 2, 0


class ModelInfo(Record):
    """What was exported."""

    name: str = Field(description="the checkpoint's folder or its id on the hub")
    family: str = Field(description="the kind of model, for people: no reader goes by it")
    pipeline: str = Field(description="the class of diffusers that draws with the original")
    prediction_type: Annotated[Literal["epsilon", "v_prediction", "sample"], INFORMS] = Field(
        description="what the denoiser was trained to predict; the step tables have it in their numbers"
    )
    licence: str = Field(description="the licence of the weights, by the name that the checkpoint gives")
    revision: str | None = Field(description="the commit on the hub; null for a folder")
    fingerprint: Sha256 = Field(description="sha256 over the names and sha256 sums of the original's weight files")
    licence_files: tuple[BundlePath, ...] = Field(
        default=(), description="texts that must travel with the bundle: licences of the weights and the vocabulary"
    )
    licence_url: str | None = Field(
        default=None, description="where the licence's text is, if the checkpoint has only its name; null: not known"
    )
    attribution: str = Field(default="", description="a line for an app's page of credits")


class TargetInfo(Record):
    """For which phone."""

    name: str = Field(description="the target's name")
    title: str = Field(description="the phone's name, for people")
    soc: str | None = Field(description="its processor; null where the target leaves it open")
    memory_mb: Size | None = Field(description="the phone's whole RAM in MB of 2^20 bytes; null where it is open")
    os_floor: str | None = Field(description="the oldest system that it is for; null where it is open")


class Latents(Record):
    """Latents are float32 [batch, channels, height, width]."""

    channels: Size = Field(description="channels of the latents")
    height: Size = Field(description="rows of the latents")
    width: Size = Field(description="columns of the latents")
    scale: Size = Field(description="pixels of the picture for each latent, on each axis")


class Vae(Record):
    """The decoder takes latents / scaling_factor + shift_factor."""

    scaling_factor: float = Field(description="divides latents before they are decoded, multiplies encoded ones")
    shift_factor: float = Field(description="is added after the division, and taken away before the multiplication")
    tile_size: Size | None = Field(default=None, description="reserved: pixels of a tile; null: the whole picture")
    tile_overlap: Size | None = Field(default=None, description="reserved: pixels that neighbouring tiles share")


class AddedToken(Record):
    """A text that is looked for in the prompt as it is, before the prompt is normalized and cut into words.

    Where several begin at one place the longest is taken, and the search goes on behind it. First come those that are
    not `normalized`, in the prompt as it was typed; then, in the stretches between them, the others.
    """

    text: Annotated[str, Field(description="the text; written alone in a prompt it becomes this one id")]
    id: Annotated[Count, Field(description="its token id, which may lie past those of the vocabulary")]
    special: Annotated[
        bool, Field(description="whether it is a mark such as the end of the text; ids do not depend on it")
    ]
    normalized: Annotated[
        bool,
        Field(
            description="whether prompt and text are both normalized (Unicode NFC, one space for each run of white "
            "space, lower case) before they are compared, so that a prompt in capitals matches too"
        ),
    ]
    lstrip: Annotated[bool, Field(description="whether the white space before it is taken away with it")]
    rstrip: Annotated[bool, Field(description="whether the white space behind it is taken away with it")]
    single_word: Annotated[
        bool, Field(description="whether it counts only where no letter, digit or underscore touches it")
    ]
    expansion: Annotated[
        str,
        Field(
            description="not empty for a textual inversion of several vectors: where the prompt's tokens hold this "
            "one, each place where the prompt spells `text` out, in these very letters, is first replaced by this"
        ),
    ] = ""


class Tokenizer(Record):
    """CLIP's byte-level byte-pair encoding. A text encoder with an input `attention_mask` (int32) gets 1 at the
    beginning token, the text and the end token, and 0 at the padding."""

    kind: Annotated[Literal["clip"], Field(description="CLIP's normalization, words and byte-pair encoding")]
    vocab: Annotated[BundlePath, Field(description="JSON: the id of each token of the vocabulary")]
    merges: Annotated[BundlePath, Field(description="text: one pair a line, the first is merged first")]
    characters: Annotated[
        BundlePath,
        Field(description="JSON: what must be known of Unicode: letters, digits, white space, lower case, NFC"),
    ]
    max_length: Annotated[
        Size, Field(description="tokens that the text encoder takes, the beginning and the end token among them")
    ]
    bos_id: Annotated[Count, Field(description="id of the beginning token")]
    eos_id: Annotated[Count, Field(description="id of the end token, which comes behind the text or where it is cut")]
    pad_id: Annotated[Count, Field(description="id that fills the rest behind the end token")]
    unk_id: Annotated[
        Count | None, Field(description="id of a byte that the vocabulary lacks; null: such a byte has no token")
    ] = None
    added_tokens: Annotated[
        tuple[AddedToken, ...],
        Field(description="the texts that are looked for before all else, in order of their ids"),
    ] = ()


class Scheduler(Record):
    """The sampler of the checkpoint. `config` is that of its diffusers scheduler as its pipeline mends it; infinities
    are spelled as in verdicts. `replaced` names the checkpoint's own scheduler class where the export put another
    sampler in its place."""

    config: dict[str, JsonValue]
    default_sampler: str
    replaced: str | None = None


class Defaults(Record):
    """What to draw with where the user says nothing: the defaults of the original's own pipeline."""

    steps: Size = Field(description="denoising steps")
    guidance: float = Field(description="guidance scale")
    strength: float = Field(gt=0, le=1, description="of image to image: the share of the steps that are run")


class Preview(Record):
    """A rough picture of latents, one pixel for each, while a picture is drawn. It is fitted, and no part of the
    proof: rgb[k] = bias[k] + sum over c of latents[c] * matrix[c][k], in 0..1 after clamping."""

    matrix: tuple[tuple[float, float, float], ...] = Field(
        description="a row for each channel of the latents: what it adds to red, green and blue"
    )
    bias: tuple[float, float, float] = Field(description="red, green and blue of latents that are all zero")
    psnr_db: float = Field(
        description="how near it comes to the recorded pictures, scaled down to one pixel for each latent: PSNR in dB "
        "with a peak of 1"
    )


class ExternalData(Record):
    """A file of weights beside a graph."""

    location: str = Field(description="the name under which the graph looks for it")
    path: BundlePath = Field(description="where it lies in the bundle")


class PipelineGraph(Record):
    """One artifact, as whoever runs it needs it: this part is in the pipeline file.

    `storage` is that of the matrices, islands of float aside: "int8", "palette6", or "mixed"; "float16" where float32
    alone is beside it. A lossy recipe has floors of its own: `floor_db` for the outputs of this graph,
    `picture_floors_db` for pictures; the evidence for them is in the recipe.
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
        """Raises UserError, which names it, for a dtype that this reader could not feed."""
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


class RecordedTensor(Record):
    """One input or output of a graph over all its recorded calls."""

    values: Annotated[
        ArrayRef, Field(description="the distinct values, one after the other: the first axis counts them")
    ]
    calls: Annotated[tuple[Count, ...], Field(description="for each call, which of `values` it had")]


class RecordedGraph(Record):
    """The recorded calls of one graph. A call is for a half of guidance, at a step, or neither."""

    halves: Annotated[
        tuple[Literal["negative", "positive", ""], ...],
        Field(description="of each call the half of guidance that it was for; empty where it was for both or none"),
    ]
    steps: Annotated[
        tuple[Count | None, ...], Field(description="of each call the row of the step table, from 0; null outside")
    ]
    inputs: Annotated[dict[str, RecordedTensor], Field(description="by the name of the tensor")]
    outputs: Annotated[dict[str, RecordedTensor], Field(description="by the name of the tensor")]


class GoldenCase(Record):
    """One recorded call of the original: run the graph on the inputs and compare."""

    label: str = Field(description="which call it was, for people")
    inputs: dict[str, ArrayRef] = Field(description="what the graph is given, by the names of its spec")
    outputs: dict[str, ArrayRef] = Field(description="what the original gave, by the names of its spec")


class OriginalPicture(Record):
    """One picture by the original, and all that it takes to draw it again."""

    image: BundlePath = Field(description="the picture, a PNG of 8 bits a channel")
    prompt: str = Field(description="what was drawn")
    negative_prompt: str | None = Field(description="what was not to be drawn; null: no negative prompt was given")
    seed: Seed = Field(description="a whole number from -2^63 to 2^64-1, in decimal digits")
    steps: Size = Field(description="denoising steps")
    sampler: str = Field(description="the sampler's name in the step tables")
    guidance: float = Field(description="guidance scale")


class Trajectory(OriginalPicture):
    """One picture drawn by the original model, and what was computed on the way."""

    arrays: Annotated[
        dict[str, ArrayRef],
        Field(
            description="noise, the first draw; latents, before each row of the step table and at the end; picture, "
            "uint8 [height, width, 3]"
        ),
    ]
    graphs: Annotated[dict[str, RecordedGraph], Field(description="the recorded calls of each graph, by its name")]
    controls: dict[str, AnyFloat] = Field(
        default={}, description="PSNR (dB) of other pictures by the original beside this one, by what was other"
    )


class Calibration(Record):
    """What the ranges of integers for activations were measured on."""

    prompts: tuple[str, ...] = Field(description="what the original drew")
    seeds: tuple[Seed, ...] = Field(description="the seed of each prompt")
    steps: Size = Field(description="denoising steps of each drawing")
    guidance: float = Field(description="guidance scale of each drawing")
    sha256: Sha256 = Field(description="digest of the token ids, latents and pictures that came of it")


class Verdict(Record):
    """What the gate found. The fields are those of metrics.ParityReport; decibels, errors and limits may be infinite.

    That of the rungs "rounding" and "changed" has the format whose floors they move. `passed` is what the other fields
    say, or the file is refused.
    """

    subject: str = Field(
        description='a graph ("unet"), one of its outputs ("unet.out_sample"), a stage ("image"), or pictures'
    )
    rung: str = Field(description="what was compared with the original, from the rewrites to the shipped recipe")
    format: str | None = Field(description="the format that was judged; null where no artifact was, as for rewrites")
    storage: str = Field(description="the precision of the weights that were judged")
    arithmetic: str = Field(description="the precision that was computed in")
    floor_db: AnyFloat = Field(description="the PSNR in dB that had to be reached")
    psnr_db: AnyFloat = Field(description="the PSNR in dB of the worst case, its peak from the reference")
    peak: AnyFloat = Field(description="the largest absolute value of the reference")
    max_abs: AnyFloat = Field(description="the largest single error")
    max_abs_limit: AnyFloat = Field(description="what the largest single error may be")
    worst: tuple[Count, ...] = Field(description="where the largest single error is: its index in the array")
    worst_case: str = Field(description="which recorded call it is in")
    relative: AnyFloat = Field(description="the largest single error divided by the peak")
    finite: bool = Field(description="whether all values are finite")
    cases: Count = Field(description="how many calls were compared")
    passed: bool = Field(description="whether floor and limit were kept, by finite values, in at least one case")
    device: Annotated[Literal["host", "arm64", "gpu"], INFORMS] = Field(
        default="host", description="where it ran: this machine, or a stand-in for a phone"
    )

    @model_validator(mode="after")
    def _passed_is_derived(self) -> Self:
        good = self.psnr_db >= self.floor_db and self.max_abs <= self.max_abs_limit
        if self.passed != (self.cases > 0 and self.finite and good):
            raise ValueError(f"the verdict on {self.subject} says passed={self.passed}, its numbers say otherwise")
        return self


class Worst(Record):
    """The verdict that is nearest to its floor, or furthest below it. A number that is not finite is null."""

    subject: str = Field(description="the graph, output, stage or picture that was judged")
    format: str | None = Field(description="the format that was judged; null where no artifact was")
    psnr_db: float | None = Field(description="its PSNR in dB; null where that is not finite")
    floor_db: float | None = Field(description="its floor in dB; null where that is not finite")
    margin_db: float | None = Field(description="PSNR less floor in dB; null where that is not finite")


class ProofSummary(Record):
    """How the bundle was judged, in short: it must be what the proof file says, where that is there."""

    file: BundlePath = Field(description="the proof file")
    sha256: Sha256 = Field(description="digest of the proof file, whether it is there or not")
    kind: Annotated[Literal["quick", "full"], INFORMS] = Field(description="how much was judged; quick is reserved")
    passed: bool = Field(description="whether every verdict passed, and every output of every graph has one")
    worst: Worst | None = Field(description="the worst verdict; null where there is none")


class Provenance(Record):
    """Versions only: no time, no path, no name of a person or machine."""

    exported_by: str = Field(description="the exporter and its version")
    python: str = Field(description="the version of Python")
    toolchain: dict[str, str] = Field(description="the versions of the packages that took part, by name")


class Common(Record):
    """What the pipeline files of all formats have in common."""

    latents: Latents = Field(description="the size of the latents")
    vae: Vae = Field(description="the scale between latents and the VAE")
    tokenizers: tuple[Tokenizer, ...] = Field(
        min_length=1, description="how prompts become ids: tokens/N is made by the N-th, counted from 1"
    )
    program: Program = Field(description="which graph is called when, with what")
    defaults: Defaults = Field(
        default=Defaults(steps=50, guidance=7.5, strength=0.8), description="what to draw with by default"
    )
    preview: Preview | None = Field(default=None, description="a rough picture of latents; null: there is none")

    @property
    def tokenizer(self) -> Tokenizer:
        """The first."""
        return self.tokenizers[0]


class Draft(Common):
    """All that is decided before the files are counted. `provenance` is None where the proof part is not installed;
    then what proof.json holds is empty, in graphs as well."""

    model: ModelInfo
    target: TargetInfo
    scheduler: Scheduler
    graphs: dict[str, dict[str, Graph]]
    step_tables: TableFile
    golden: tuple[Trajectory, ...]
    verdicts: tuple[Verdict, ...]
    provenance: Provenance | None
    calibration: Calibration | None = None
    cases: dict[str, GoldenCase] = {}
    conformance: tuple[BundlePath, ...] = ()
    proof_kind: Annotated[Literal["quick", "full"], INFORMS] = "full"


class Manifest(Draft):
    """A bundle's whole record. `files` holds every file but manifest.json and manifest.sha256."""

    version: Literal[2] = 2
    minor: Count = MINOR
    proof: ProofSummary
    picture: OriginalPicture | None
    runtime_id: Sha256
    bundle_id: Sha256
    files: dict[BundlePath, FileEntry]

    @property
    def has_proof(self) -> bool:
        """Whether the proof part is installed."""
        return self.provenance is not None

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        check_table(self.files)
        for owner, path in runtime_paths(self):
            if path not in self.files:
                raise ValueError(f"{owner} is {path}, which is not in the file table")
            if self.files[path].role != "runtime":
                raise ValueError(f"{owner} is {path}, whose role is {self.files[path].role}, not runtime")
        for trajectory in self.golden:
            if trajectory.image not in self.files:
                raise ValueError(
                    f"the image of {trajectory.prompt!r} is {trajectory.image}, which is not in the file table"
                )
        for name, ref in _arrays(self):
            if ref.path not in self.files:
                raise ValueError(f"{name} is {ref.path}, which is not in the file table")
            if ref.nbytes != self.files[ref.path].size:
                raise ValueError(f"{name} has {ref.nbytes} bytes, its file {ref.path} has {self.files[ref.path].size}")
        for format, graphs in self.graphs.items():
            for name, graph in graphs.items():
                if graph.spec.name != name:
                    raise ValueError(f"the {format} graph {name} calls itself {graph.spec.name}")
                if not any(file == graph.path or file.startswith(graph.path + "/") for file in graph.files):
                    raise ValueError(f"the {format} graph {name} does not list its own file {graph.path}")
                axes = {tensor.name: len(tensor.shape) for tensor in (*graph.spec.inputs, *graph.spec.outputs)}
                for tensor, order in graph.transposes.items():
                    if sorted(order) != [*range(axes.get(tensor, -1))]:
                        raise ValueError(f"the {format} graph {name} has no tensor {tensor} of the axes {list(order)}")
        if self.bundle_id != bundle_id(self.files):
            raise ValueError("bundle_id is not the digest of the file table")
        if self.runtime_id != runtime_id(self.files):
            raise ValueError("runtime_id is not the digest of the files of role runtime")
        return self


def runtime_paths(draft: Draft) -> Iterator[tuple[str, str]]:
    """Each file that whoever draws needs by name, with what names it; the picture of the original is the first of
    `golden`, where there is one."""
    for number, tokenizer in enumerate(draft.tokenizers, 1):
        yield f"the vocabulary of tokenizer {number}", tokenizer.vocab
        yield f"the file of merges of tokenizer {number}", tokenizer.merges
        yield f"the character tables of tokenizer {number}", tokenizer.characters
    for format, graphs in draft.graphs.items():
        for name, graph in graphs.items():
            for file in (*graph.files, *(data.path for data in graph.external_data)):
                yield f"a file of the {format} graph {name}", file
    for name, ref in _constants(draft.program):
        yield name, ref.path
    for path in draft.model.licence_files:
        yield "a licence", path
    for path in draft.conformance:
        yield "a conformance vector", path
    for name, case in draft.cases.items():
        for ref in (*case.inputs.values(), *case.outputs.values()):
            yield f"the golden case of {name}", ref.path
    picture = draft.picture if isinstance(draft, Manifest) else original_picture(draft)
    if picture is not None:
        yield "the picture of the original", picture.image


def original_picture(draft: Draft) -> OriginalPicture | None:
    """The first picture of `golden`, without what was computed on the way."""
    if not draft.golden:
        return None
    return OriginalPicture(**{name: getattr(draft.golden[0], name) for name in OriginalPicture.model_fields})


def _arrays(manifest: Manifest) -> Iterator[tuple[str, ArrayRef]]:
    for name, case in manifest.cases.items():
        for tensor, ref in (*case.inputs.items(), *case.outputs.items()):
            yield f"{tensor} of the golden case of {name}", ref
    for trajectory in manifest.golden:
        for name, ref in trajectory.arrays.items():
            yield f"{name} of {trajectory.prompt!r}", ref
        for graph, recorded in trajectory.graphs.items():
            for name, each in (*recorded.inputs.items(), *recorded.outputs.items()):
                yield f"{graph}.{name} of {trajectory.prompt!r}", each.values
    yield from _constants(manifest.program)


def _constants(program: Program) -> Iterator[tuple[str, ArrayRef]]:
    for stage in program.stages:
        for call in stage.calls:
            for name, given in call.inputs.items():
                if isinstance(given, Constant):
                    yield f"the constant {call.graph}.{name}", given.constant
