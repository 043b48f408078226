"""The manifest: a bundle's complete record in memory. Apps read every constant from it.

On disk it is split into three kinds of JSON file (layout.py): manifest.json, the index; pipeline/FORMAT.json, all that
changes a picture; proof.json, how the bundle was judged. docs/BUNDLE.md describes their use for readers in other
languages.

Every path is relative to the bundle, with "/" between parts of [A-Za-z0-9._-]. JSON cannot express numbers that are not
finite: in verdicts and the scheduler's settings they are the strings "Infinity", "-Infinity" and "NaN", elsewhere they
are refused. Seeds are strings."""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pocketdiffusion.runtime.bundle.file_table import FileEntry, bundle_id, check_table, runtime_id
from pocketdiffusion.runtime.bundle.golden_records import (
    Calibration,
    GoldenCase,
    OriginalPicture,
    RecordedGraph,
    RecordedTensor,
    Trajectory,
)
from pocketdiffusion.runtime.bundle.graph_records import ExternalData, Graph, GraphProof, PipelineGraph
from pocketdiffusion.runtime.bundle.picture_records import Defaults, Latents, Preview, Scheduler, Vae
from pocketdiffusion.runtime.bundle.subject_records import ModelInfo, Provenance, TargetInfo
from pocketdiffusion.runtime.bundle.tokenizer_records import AddedToken, Tokenizer
from pocketdiffusion.runtime.bundle.verdicts import ProofKind, ProofSummary, Verdict, Worst
from pocketdiffusion.runtime.program import Constant, Program
from pocketdiffusion.runtime.record import INFORMS, ArrayRef, BundlePath, Count, Record, Sha256
from pocketdiffusion.runtime.sampling.stored_tables import TableFile

__all__ = [  # the records of all topics, to import from here
    "AddedToken",
    "Calibration",
    "Common",
    "Defaults",
    "UnsealedManifest",
    "ExternalData",
    "GoldenCase",
    "Graph",
    "GraphProof",
    "Latents",
    "MINOR",
    "Manifest",
    "ModelInfo",
    "OriginalPicture",
    "PipelineGraph",
    "Preview",
    "ProofSummary",
    "Provenance",
    "RecordedGraph",
    "RecordedTensor",
    "Scheduler",
    "TargetInfo",
    "Tokenizer",
    "Trajectory",
    "VERSION",
    "Vae",
    "Verdict",
    "Worst",
    "original_picture",
    "runtime_paths",
]
VERSION, MINOR = 2, 0


class Common(Record):
    """The fields that the pipeline files of all formats share."""

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
        """Return the first tokenizer."""
        return self.tokenizers[0]


class UnsealedManifest(Common):
    """A manifest before its files are hashed. `provenance` is None if the proof part is not installed; then the fields
    of proof.json are empty, in graphs as well."""

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
    proof_kind: Annotated[ProofKind, INFORMS] = "full"


class Manifest(UnsealedManifest):
    """The complete record of a bundle. `files` has every file except manifest.json and manifest.sha256."""

    version: Literal[2] = 2
    minor: Count = MINOR
    proof: ProofSummary
    picture: OriginalPicture | None
    runtime_id: Sha256
    bundle_id: Sha256
    files: dict[BundlePath, FileEntry]

    @property
    def has_proof(self) -> bool:
        """Return True if the proof part is installed."""
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
            if (role := self.files[ref.path].role) not in ("runtime", "proof"):  # files of other roles may be missing
                raise ValueError(f"{name} is {ref.path}, whose role is {role}, not proof")
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


def runtime_paths(draft: UnsealedManifest) -> Iterator[tuple[str, str]]:
    """Yield (owner, path) of each file that drawing needs by name, and of the picture of the original, the first of
    `golden`, if there is one."""
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


def original_picture(draft: UnsealedManifest) -> OriginalPicture | None:
    """Return the first picture of `golden` without its recorded calls, None if there is none."""
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
