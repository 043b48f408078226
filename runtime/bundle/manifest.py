"""manifest.json: the whole contract between Python, Kotlin and Swift. Apps take every constant from it.

Every path in it is relative to the bundle, with "/" between parts made of [A-Za-z0-9._-]. JSON has no word for numbers
that are not finite: in verdicts and scheduler.config they are the strings "Infinity", "-Infinity" and "NaN", elsewhere
they are refused.

manifest.schema.json says the same as this file, for readers in other languages.
"""

import json
from collections.abc import Iterator
from math import prod
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, JsonValue, model_validator

from pocketdiffusion.runtime.bundle.file_table import FileEntry, bundle_id, check_table
from pocketdiffusion.runtime.bundle.record import AnyFloat, BundlePath, Count, Record, Sha256, Size
from pocketdiffusion.runtime.bundle.step_columns import PackedSteps
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.graph_spec import GraphSpec

VERSION = 1


class ModelInfo(Record):
    """What was exported. `pipeline` is the diffusers class; `fingerprint` is the sha256 of the original weights."""

    name: str
    family: str
    pipeline: str
    prediction_type: Literal["epsilon", "v_prediction", "sample"]
    licence: str
    revision: str | None
    fingerprint: Sha256


class TargetInfo(Record):
    """For which phone. None where a target such as "generic" leaves it open. `memory_mb` is the phone's whole RAM."""

    name: str
    title: str
    soc: str | None
    memory_mb: Size | None
    os_floor: str | None


class Latents(Record):
    """Latents are float32 [batch, channels, height, width]; a picture has `scale` pixels per latent on each axis."""

    channels: Size
    height: Size
    width: Size
    scale: Size


class Vae(Record):
    """The decoder takes latents / scaling_factor + shift_factor."""

    scaling_factor: float
    shift_factor: float


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
    """`config` is the configuration of the checkpoint's diffusers scheduler as its pipeline mends it; infinities are
    spelled as in verdicts. `replaced` names the checkpoint's own scheduler class where the export put another sampler
    in its place."""

    config: dict[str, JsonValue]
    default_sampler: str
    replaced: str | None = None


class Graph(Record):
    """One artifact. `files` are all the files it consists of, `path` among them or the folder that holds them.

    `file_spec` is there where the file's own inputs and outputs differ from `spec`: its tensors are those of `spec`, in
    the same order, under the file's names, in its shapes and dtypes. `transposes` holds, for each tensor of `spec` that
    the file lays out otherwise, the order of its axes there, as numpy.transpose takes it; axes of size 1 come after.

    `layers` names, for each module of the original that has a matrix, the file's own result of it, in the order of
    execution: by it a layer can be blamed.

    `storage` is that of the matrices, islands of float aside: "int8", "palette6", or "mixed"; "float16" where float32
    alone is beside it. `stored` counts them.
    `arithmetic` "int8" and "int16" are what convolutions and matrix products compute in. A lossy recipe has floors of
    its own: `floor_db` for the outputs of this graph, `picture_floors_db` (median, minimum) for pictures; the evidence
    for them is in the recipe.
    """

    path: BundlePath
    files: tuple[BundlePath, ...]
    spec: GraphSpec
    profile: str
    recipe: str
    storage: Annotated[str, Field(pattern=r"^(float(16|32)|int[2-8]|palette[1-8]|mixed)$")]
    arithmetic: Literal["float32", "float16", "int8", "int16"]
    compute_unit: str
    rewrites: dict[str, Count]
    ops: dict[str, Count]
    parameters: Count
    transposes: dict[str, tuple[Count, ...]] = {}
    file_spec: GraphSpec | None = None
    stored: dict[str, Count] = {}
    layers: tuple[tuple[str, str], ...] = ()
    layer_exponents: Annotated[
        dict[str, int],
        Field(
            description="For modules of `layers` whose result in the file is 2^-e times the original's, since weights "
            "were multiplied by powers of two to stay within float16: e. Modules that are not here have 0."
        ),
    ] = {}
    engine_needs: Annotated[
        dict[str, str],
        Field(
            description="The oldest version of an engine that knows the versions of all operators in the file, by the "
            "engine's name: `tflite` is the version of TensorFlow Lite, which LiteRT's own versions continue."
        ),
    ] = {}
    floor_db: float | None = None
    picture_floors_db: tuple[float, float] | None = None


class ArrayRef(Record):
    """A tensor in a file of its own: little-endian, C order, nothing else."""

    path: BundlePath
    dtype: Literal["float16", "float32", "int32", "int64", "uint8"]
    shape: tuple[Count, ...]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * np.dtype(self.dtype).itemsize


class Trajectory(Record):
    """One picture drawn by the original model, and all that it takes to draw it again. `image` is a PNG; `arrays` is
    what was computed on the way, by the names of recording.Trajectory."""

    prompt: str
    negative_prompt: str
    seed: Count
    steps: Size
    sampler: str
    guidance: float
    image: BundlePath
    arrays: dict[str, ArrayRef]
    controls: dict[str, AnyFloat] = Field(
        default={}, description="PSNR (dB) of other pictures by the original beside this one, by what was other"
    )


class Calibration(Record):
    """What the ranges of integers for activations were measured on: the prompts, each drawn by the original with its
    seed. `sha256` is of the token ids, latents and pictures that came of it."""

    prompts: tuple[str, ...]
    seeds: tuple[Count, ...]
    steps: Size
    guidance: float
    sha256: Sha256


class Verdict(Record):
    """What the gate found. The fields are those of metrics.ParityReport; decibels, errors and limits may be infinite.

    `subject` is a graph ("unet"), one of its outputs ("unet.out_sample") or a stage ("image"); `format` is None where
    no artifact was judged, as for the rewrites; that of the rungs "rounding" and "changed" is the format whose
    floors they move. `device` is where it ran. `passed` is what the other fields say, or the manifest is refused.
    """

    subject: str
    rung: str
    format: str | None
    storage: str
    arithmetic: str
    floor_db: AnyFloat
    psnr_db: AnyFloat
    peak: AnyFloat
    max_abs: AnyFloat
    max_abs_limit: AnyFloat
    worst: tuple[Count, ...]
    worst_case: str
    relative: AnyFloat
    finite: bool
    cases: Count
    passed: bool
    device: Literal["host", "arm64", "gpu"] = "host"

    @model_validator(mode="after")
    def _passed_is_derived(self) -> Self:
        good = self.psnr_db >= self.floor_db and self.max_abs <= self.max_abs_limit
        if self.passed != (self.cases > 0 and self.finite and good):
            raise ValueError(f"the verdict on {self.subject} says passed={self.passed}, its numbers say otherwise")
        return self


class Provenance(Record):
    """Versions only: no time, no path, no name of a person or machine."""

    exported_by: str
    python: str
    toolchain: dict[str, str]


class Draft(Record):
    """All of the manifest that is decided before the files are counted."""

    version: Literal[1] = 1
    model: ModelInfo
    target: TargetInfo
    latents: Latents
    vae: Vae
    tokenizer: Tokenizer
    scheduler: Scheduler
    graphs: dict[str, dict[str, Graph]]
    step_tables: tuple[PackedSteps, ...]
    golden: tuple[Trajectory, ...]
    verdicts: tuple[Verdict, ...]
    provenance: Provenance
    calibration: Calibration | None = None
    conformance: Annotated[
        tuple[BundlePath, ...],
        Field(description="files of vectors by the original libraries that every reader meets: verify/vectors.py"),
    ] = ()


class Manifest(Draft):
    """`files` holds every file of the bundle but manifest.json and manifest.sha256. See `bundle_id` for the id."""

    bundle_id: Sha256
    files: Annotated[dict[BundlePath, FileEntry], Field(json_schema_extra={"additionalProperties": False})]

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        check_table(self.files)
        for owner, path in _named_paths(self):
            if path not in self.files:
                raise ValueError(f"{owner} is {path}, which is not in the file table")
        for name, ref in _arrays(self):
            if ref.nbytes != self.files[ref.path].size:
                raise ValueError(f"{name} has {ref.nbytes} bytes, its file {ref.path} has {self.files[ref.path].size}")
        for format, graphs in self.graphs.items():
            for name, graph in graphs.items():
                if graph.spec.name != name:
                    raise ValueError(f"the {format} graph {name} calls itself {graph.spec.name}")
                if not any(file == graph.path or file.startswith(graph.path + "/") for file in graph.files):
                    raise ValueError(f"the {format} graph {name} does not list its own file {graph.path}")
        if self.bundle_id != bundle_id(self.files):
            raise ValueError("bundle_id is not the digest of the file table")
        return self


def encode(manifest: Manifest) -> bytes:
    """The one spelling of a manifest: UTF-8 JSON, keys sorted, no spaces, one newline at the end."""
    fields = manifest.model_dump(mode="json")
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def decode(raw: bytes) -> Manifest:
    """Raises ValueError (pydantic's ValidationError among them) where `raw` is no manifest, UserError where it is one
    of another version."""
    fields = json.loads(raw, object_pairs_hook=_unique, parse_constant=_refuse)
    version = fields.get("version") if isinstance(fields, dict) else None
    if type(version) is not int:
        raise ValueError("it states no version")
    if version != VERSION:
        way_out = "install a newer pocketdiffusion" if version > VERSION else "export the model again"
        raise UserError(f"a bundle of version {version}, where this pocketdiffusion reads version {VERSION}: {way_out}")
    return Manifest.model_validate_json(raw, strict=True)


def manifest_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of manifest.json as it is written: every field is there."""
    schema = Manifest.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError(f"a key is there twice among {sorted(name for name, _ in pairs)}")
    return fields


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def _named_paths(manifest: Manifest) -> Iterator[tuple[str, str]]:
    yield "tokenizer.vocab", manifest.tokenizer.vocab
    yield "tokenizer.merges", manifest.tokenizer.merges
    for format, graphs in manifest.graphs.items():
        for name, graph in graphs.items():
            for file in graph.files:
                yield f"a file of the {format} graph {name}", file
    for path in manifest.conformance:
        yield "a file of conformance vectors", path
    for trajectory in manifest.golden:
        yield f"the image of {trajectory.prompt!r}", trajectory.image
    for name, ref in _arrays(manifest):
        yield name, ref.path


def _arrays(manifest: Manifest) -> Iterator[tuple[str, ArrayRef]]:
    for trajectory in manifest.golden:
        for name, ref in trajectory.arrays.items():
            yield f"{name} of {trajectory.prompt!r}", ref
