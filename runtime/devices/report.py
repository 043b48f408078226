"""The device report: JSON that an app writes after its self-test on a phone.

device_report.schema.json in this folder defines it for readers and writers in other languages. Every field is
written; fields that are not known here are ignored. Only decibels can be numbers that JSON cannot write, as the text
"Infinity" (equal to the last bit) or "-Infinity" (not finite).
"""

import json
from math import isnan
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, ValidationError

from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.record import AnyFloat, Count, Record, Sha256

VERSION = 1


def _no_nan(value: float) -> float:
    if isnan(value):
        raise ValueError("decibels are a number, Infinity or -Infinity")
    return value


def _one_line(text: str) -> str:
    return " ".join(text.split())


Words = Annotated[str, AfterValidator(_one_line)]
Decibels = Annotated[AnyFloat, AfterValidator(_no_nan)]
Seconds = Annotated[float, Field(ge=0)]


class ReportRecord(Record):
    """The base of the records of a device report: fields that a later version adds are ignored."""

    model_config = ConfigDict(extra="ignore")


class Phone(ReportRecord):
    """The phone that the report is of."""

    maker: Annotated[Words, Field(min_length=1, description='who made the phone, such as "Google"')]
    model: Annotated[Words, Field(min_length=1, description='the phone\'s name, such as "Pixel 8"')]
    soc: Annotated[Words | None, Field(description='its processor, such as "Tensor G3"; null: the system does not say')]


class Program(ReportRecord):
    """A program and its version."""

    name: Annotated[
        Words, Field(min_length=1, description='its name, such as "Android", "onnxruntime" or the app\'s own')
    ]
    version: Annotated[Words, Field(min_length=1, description='its version as it states it, such as "14" or "1.30.0"')]


class OutputResult(ReportRecord):
    """One output of a graph, compared with the golden case of the bundle."""

    output: Annotated[Words, Field(description="the output's name, as in the graph's `spec`")]
    psnr_db: Annotated[
        Decibels,
        Field(
            description="20 log10(peak / rmse) over all elements, peak the largest absolute value of the golden "
            'output; "Infinity": equal to the last bit; "-Infinity": an element is not finite, or the shape is another'
        ),
    ]
    finite: Annotated[bool, Field(description="whether every element is a number: neither NaN nor infinite")]


class UnitResult(ReportRecord):
    """One graph on one compute unit. Where the unit refused it, `error` says so, and there are no outputs."""

    format: Annotated[Words, Field(description='the format of the file that was run, such as "onnx"')]
    graph: Annotated[Words, Field(description="the graph's name, as in the manifest")]
    unit: Annotated[
        str,
        Field(
            pattern="^[a-z0-9_-]{1,32}$",
            description='where it was to run: "cpu", "gpu", "npu", "ane" or "webgpu", as in `units`',
        ),
    ]
    arithmetic: Annotated[
        Literal["float32", "float16", "int8", "int16"],
        Field(
            description="what the unit computed in: the graph's `arithmetic`, but where the unit computes in float16 "
            "though the file says float32"
        ),
    ]
    load_seconds: Annotated[
        Seconds | None, Field(description="from opening the file to a graph that can be called, in s; null: it failed")
    ]
    first_call_seconds: Annotated[
        Seconds | None, Field(description="the first call, which may compile, in s; null: it failed")
    ]
    median_call_seconds: Annotated[
        Seconds | None, Field(description="the median of the calls after the first, in s; null: there were none")
    ]
    peak_bytes: Annotated[
        Count | None,
        Field(description="the largest memory of the process while the graph was there, in bytes; null: not measured"),
    ]
    outputs: Annotated[
        tuple[OutputResult, ...], Field(description="every output of the graph, once; empty where `error` is not null")
    ]
    error: Annotated[
        Words | None,
        Field(description="what the engine said where the unit refused the graph or a call failed; else null"),
    ]


class PictureResult(ReportRecord):
    """A whole picture, drawn on the phone as the original's picture in the bundle was."""

    format: Annotated[Words, Field(description="the format of the files that drew it")]
    arithmetic: Annotated[
        Literal["float32", "float16", "int8", "int16"],
        Field(description="the least precise arithmetic among the graphs that drew it"),
    ]
    psnr_db: Annotated[
        Decibels,
        Field(description='beside the bundle\'s PNG, 8 bits, peak 255; "-Infinity": what was decoded was not finite'),
    ]


class Vectors(ReportRecord):
    """The conformance vectors of the bundle, by name: each in one of the two lists."""

    passed: Annotated[tuple[Words, ...], Field(description="names of the vectors that the app computed correctly")]
    failed: Annotated[tuple[Words, ...], Field(description="names of the vectors that the app computed wrongly")]


class DeviceReport(ReportRecord):
    """What a bundle did on a phone."""

    version: Annotated[Literal[1], Field(description="of this format; a reader refuses a greater one")]
    bundle_id: Annotated[Sha256, Field(description="the manifest's `bundle_id`")]
    runtime_id: Annotated[
        Sha256,
        Field(
            description="the manifest's `runtime_id`, the digest of all that changes a picture: by it a report is "
            "known to be of a bundle, also where the app has the runtime part alone"
        ),
    ]
    device: Annotated[Phone, Field(description="the phone")]
    os: Annotated[Program, Field(description="its system")]
    app: Annotated[Program, Field(description="the app that wrote this")]
    engines: Annotated[
        tuple[Program, ...], Field(min_length=1, description="the engines that ran the graphs, each once")
    ]
    graphs: Annotated[tuple[UnitResult, ...], Field(description="each graph on each unit that was tried, once")]
    conformance: Annotated[Vectors, Field(description="the bundle's conformance vectors")]
    pictures: Annotated[tuple[PictureResult, ...], Field(description="the pictures that were drawn; may be empty")]


def read_report(path: Path) -> DeviceReport:
    """Return the device report in the file `path`. Raise UserError, in one line, if it cannot be read, is not JSON, has
    a newer version, or lacks or misspells a field, which is named."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the device report {path}: {error.strerror or error}") from None
    if not raw.strip():
        raise UserError(f"{path} is not a device report, it is empty: let the app run its self-test again")
    try:
        fields = json.loads(raw, object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise UserError(f"{path} is not a device report, it is not JSON: {said}") from None
    version = fields.get("version") if isinstance(fields, dict) else None
    if type(version) is not int:
        raise UserError(f"{path} is not a device report: it has no version, which is an integer")
    if version > VERSION:
        raise UserError(
            f"{path} is a device report of version {version}, and this pocketdiffusion reads versions up to {VERSION}: "
            "install a newer pocketdiffusion"
        )
    try:
        return DeviceReport.model_validate_json(raw, strict=True)
    except ValidationError as error:
        first, *rest = error.errors(include_url=False)
        where = ".".join(map(str, first["loc"])) or "the report"
        more = f" (and {len(rest)} more)" if rest else ""
        raise UserError(f"{path} is not a device report that can be read: {where}: {first['msg']}{more}") from None


def report_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a device report as it is written, with every field required."""
    schema = DeviceReport.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError(f"one of the keys {sorted(name for name, _ in pairs)} occurs twice")
    return fields


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not JSON")
