"""The JSON files of a bundle: one record in memory is split into them and joined from them.

    manifest.json           Index: what it is, whether it passed, which files it has
    pipeline/FORMAT.json    Pipeline: all that changes a picture
    proof.json              Proof: how it was judged

A bundle without its proof part joins to the same record, without the fields of proof.json."""

from collections.abc import Mapping
from math import isfinite
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from pocketdiffusion.runtime.bundle.file_table import (
    PIPELINES,
    PROOF,
    FileEntry,
    bundle_id,
    check_table,
    runtime_id,
)
from pocketdiffusion.runtime.bundle.golden_records import Calibration, GoldenCase, OriginalPicture, Trajectory
from pocketdiffusion.runtime.bundle.graph_records import Graph, GraphProof, PipelineGraph
from pocketdiffusion.runtime.bundle.leftovers import FILES, FOLDERS
from pocketdiffusion.runtime.bundle.manifest import MINOR, Common, Manifest, UnsealedManifest, original_picture
from pocketdiffusion.runtime.bundle.picture_records import Scheduler
from pocketdiffusion.runtime.bundle.stage_memory import Peak, predict_peaks
from pocketdiffusion.runtime.bundle.step_files import Steps
from pocketdiffusion.runtime.bundle.subject_records import ModelInfo, Provenance, TargetInfo
from pocketdiffusion.runtime.bundle.verdicts import (
    Kind,
    ProofSummary,
    Verdict,
    VerdictRecord,
    Worst,
    read_verdict,
    record_verdict,
)
from pocketdiffusion.runtime.record import READING, BundlePath, Count, Record, Sha256, Size
from pocketdiffusion.runtime.sampling.stored_tables import TableFile


class Format(Record):
    """One format of the bundle."""

    pipeline: BundlePath = Field(description="its pipeline file")
    peaks: dict[str, Peak] = Field(
        default={}, description="what drawing from a prompt needs of the phone's memory, by the name of the stage"
    )


class PassedOver(Record):
    """Names that other programs leave in a folder, compared in small letters at any depth; `*` stands for any
    characters. A path that the file table names is never passed over."""

    files: tuple[str, ...] = Field(description="patterns of file names")
    folders: tuple[str, ...] = Field(description="patterns of folder names")


class Index(Record):
    """manifest.json: what the bundle is, whether it passed its proof, and the table of all files."""

    version: Literal[2] = Field(description="the major version: a reader refuses a greater one")
    minor: Count = Field(description="the minor version: a greater one has more fields, which a reader passes over")
    model: ModelInfo = Field(description="what was exported")
    target: TargetInfo = Field(description="for which phone")
    formats: dict[str, Format] = Field(description="onnx, coreml, tflite: those that the bundle holds")
    proof: ProofSummary = Field(description="how it was judged, in short")
    picture: OriginalPicture | None = Field(description="one picture by the original, to draw again and compare")
    golden: dict[str, GoldenCase] = Field(description="one recorded call of the original for each graph, by its name")
    conformance: tuple[BundlePath, ...] = Field(description="the files of vectors with which a reader proves itself")
    passed_over: PassedOver = Field(description="what a reader does not mind beside the files of the table")
    runtime_id: Sha256 = Field(
        description="sha256 of the lines '<sha256>  <path>' of the files of role runtime, sorted by path"
    )
    bundle_id: Sha256 = Field(description="the same of the files of all roles but report")
    files: dict[BundlePath, FileEntry] = Field(
        json_schema_extra={"additionalProperties": False},
        description="every file of the bundle but manifest.json and manifest.sha256, by its path",
    )

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        check_table(self.files)
        if not self.formats:
            raise ValueError("it has no formats")
        for format, entry in self.formats.items():
            if entry.pipeline not in self.files:
                raise ValueError(f"the pipeline of {format} is {entry.pipeline}, which is not in the file table")
        if self.bundle_id != bundle_id(self.files):
            raise ValueError("bundle_id is not the digest of the file table")
        if self.runtime_id != runtime_id(self.files):
            raise ValueError("runtime_id is not the digest of the files of role runtime")
        listed = self.files.get(self.proof.file)
        if listed is None or listed.sha256 != self.proof.sha256:
            raise ValueError(f"proof.sha256 is not the digest of {self.proof.file} in the file table")
        return self


class PictureSize(Record):
    """The size of a picture."""

    width: Size = Field(description="pixels in a row")
    height: Size = Field(description="rows of pixels")


class Pipeline(Common):
    """pipeline/FORMAT.json: all that changes a picture and is not in a file of its own."""

    picture: PictureSize = Field(description="the size of the pictures that it draws")
    steps: Steps = Field(description="the step tables")
    graphs: dict[str, PipelineGraph] = Field(description="the artifacts of this format, by the graph's name")

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.picture != _picture_size(self):
            raise ValueError(f"picture is {self.picture.width}x{self.picture.height}, which does not fit the latents")
        return self


class Proof(Record):
    """proof.json: how the bundle was judged. Whoever only draws does not need it."""

    verdicts: tuple[VerdictRecord, ...] = Field(description="what the gate found, in the order in which it is shown")
    golden: tuple[Trajectory, ...] = Field(description="the recorded drawings of the original that it was judged by")
    graphs: dict[str, dict[str, GraphProof]] = Field(description="of each format and graph what the judge needs")
    calibration: Calibration | None = Field(description="where ranges of activations come from; null: none were needed")
    provenance: Provenance = Field(description="what made the bundle")


def pipeline_path(format: str) -> str:
    """Return the path of the pipeline file of a format."""
    return f"{PIPELINES}/{format}.json"


def make_pipelines(draft: UnsealedManifest, steps: Steps) -> dict[str, Pipeline]:
    """Return the pipeline file of each format."""
    common = _common(draft)
    return {
        format: Pipeline(
            **common,
            picture=_picture_size(draft),
            steps=steps,
            graphs={name: PipelineGraph(**_fields(graph, PipelineGraph)) for name, graph in graphs.items()},
        )
        for format, graphs in draft.graphs.items()
    }


def make_proof(draft: UnsealedManifest) -> Proof:
    """Return proof.json. Raise ValueError if the draft has no proof part."""
    if draft.provenance is None:
        raise ValueError("a bundle whose proof part is not installed cannot be sealed again")
    return Proof(
        verdicts=tuple(record_verdict(verdict) for verdict in draft.verdicts),
        golden=draft.golden,
        graphs={
            format: {name: GraphProof(**_fields(graph, GraphProof)) for name, graph in graphs.items()}
            for format, graphs in draft.graphs.items()
        },
        calibration=draft.calibration,
        provenance=draft.provenance,
    )


def make_index(draft: UnsealedManifest, files: Mapping[str, FileEntry]) -> Index:
    """Return manifest.json. All other files must be written before."""
    return Index(
        version=2,
        minor=MINOR,
        model=draft.model,
        target=draft.target,
        formats={
            format: Format(pipeline=pipeline_path(format), peaks=predict_peaks(draft.program, graphs))
            for format, graphs in draft.graphs.items()
        },
        proof=summarize(draft, files[PROOF].sha256),
        picture=original_picture(draft),
        golden=draft.cases,
        conformance=draft.conformance,
        passed_over=PassedOver(files=FILES, folders=FOLDERS),
        runtime_id=runtime_id(files),
        bundle_id=bundle_id(files),
        files=dict(files),
    )


def join(
    index: Index,
    pipelines: Mapping[str, Pipeline],
    tables: tuple[TableFile, Scheduler],
    proof: Proof | None,
) -> Manifest:
    """Return the one record in memory. Raise ValueError if the files contradict each other."""
    first, *others = pipelines
    common, steps = _common(pipelines[first]), pipelines[first].steps
    for other in others:
        for name, value in {**_common(pipelines[other]), "steps": pipelines[other].steps}.items():
            if value != {**common, "steps": steps}[name]:
                raise ValueError(f"{pipeline_path(first)} and {pipeline_path(other)} differ in {name}")
    graphs = {
        format: {
            name: Graph.model_validate(
                {**_fields(graph, PipelineGraph), **_proof_fields(proof, format, name)}, context=READING
            )
            for name, graph in pipeline.graphs.items()
        }
        for format, pipeline in pipelines.items()
    }
    fields: dict[str, Any] = dict(
        **common,
        **_fields(index, {"model", "target", "minor", "proof", "picture", "conformance", "runtime_id", "bundle_id"}),
        cases=index.golden,
        proof_kind=index.proof.kind,
        files=index.files,
        scheduler=tables[1],
        step_tables=tables[0],
        graphs=graphs,
        verdicts=() if proof is None else tuple(read_verdict(record) for record in proof.verdicts),
        golden=() if proof is None else proof.golden,
        calibration=None if proof is None else proof.calibration,
        provenance=None if proof is None else proof.provenance,
    )
    manifest = Manifest.model_validate(fields, context=READING)
    if proof is not None:
        if summarize(manifest, index.proof.sha256) != index.proof:
            raise ValueError(f"the summary of the proof is not what {index.proof.file} says")
        if original_picture(manifest) != index.picture:
            raise ValueError(f"the picture is not the first of {index.proof.file}")
    return manifest


def summarize(draft: UnsealedManifest, sha256: str) -> ProofSummary:
    """Return the summary of the verdicts. `sha256` is the digest of proof.json."""
    ranked = sorted(draft.verdicts, key=lambda verdict: (verdict.passed, _margin(verdict)))
    worst = None
    if ranked:
        found = ranked[0]
        numbers = {"psnr_db": found.psnr_db, "floor_db": found.floor_db, "margin_db": found.psnr_db - found.floor_db}
        finite = {name: value if isfinite(value) else None for name, value in numbers.items()}
        worst = Worst(subject=found.subject, format=found.format, **finite)
    passed = first_unproven(draft) is None
    fields = {"file": PROOF, "sha256": sha256, "kind": draft.proof_kind, "passed": passed, "worst": worst}
    return ProofSummary.model_validate(fields, context=READING)


def first_unproven(draft: UnsealedManifest) -> str | None:
    """Return a sentence about the first failed verdict, or about the first output of a graph without a verdict on its
    own artifact; None if there is neither. A verdict counts for a graph if its rung is the graph's recipe, at the
    precision that ships."""
    verdicts = draft.verdicts
    for verdict in sorted(verdicts, key=lambda verdict: verdict.kind == Kind.PICTURES):  # pictures suffer from any part
        if not verdict.passed:
            return (
                f"{verdict.subject} failed its proof ({verdict.rung}, {verdict.psnr_db:.1f} dB, "
                f"floor {verdict.floor_db:.1f} dB): see inspect, then export again"
            )
    for format, graphs in draft.graphs.items():
        for name, graph in graphs.items():
            shipped = (graph.recipe, format, graph.storage, graph.arithmetic)
            judged = {v.subject for v in verdicts if (v.rung, v.format, v.storage, v.arithmetic) == shipped}
            for output in graph.spec.outputs:
                if not judged & {name, f"{name}.{output.name}"}:
                    return f"no verdict on {output.name} of the {format} graph {name}: export again"
    return None


def _margin(verdict: Verdict) -> float:
    margin = verdict.psnr_db - verdict.floor_db
    return margin if margin == margin else float("-inf")


def _picture_size(common: Common) -> PictureSize:
    latents = common.latents
    return PictureSize(width=latents.width * latents.scale, height=latents.height * latents.scale)


def _common(record: Common) -> dict[str, Any]:
    return _fields(record, Common)


def _fields(record: Record, expected: type[Record] | set[str]) -> dict[str, Any]:
    names = expected if isinstance(expected, set) else expected.model_fields.keys()
    return {name: getattr(record, name) for name in names}


def _proof_fields(proof: Proof | None, format: str, name: str) -> dict[str, Any]:
    if proof is None:
        return {}
    found = proof.graphs.get(format, {}).get(name)
    if found is None:
        raise ValueError(f"{PROOF} has no record of the {format} graph {name}")
    return _fields(found, GraphProof)
