"""The kinds of field that the records of a bundle's JSON files are made of, and the record of an array in a file."""

from math import inf, prod
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from pydantic_core.core_schema import with_info_wrap_validator_function

WORDS = {"Infinity": inf, "-Infinity": -inf, "NaN": float("nan")}

_PART = r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_-])?"  # neither hidden, "." nor "..", nor changed by Windows
BundlePath = Annotated[str, Field(pattern=rf"^{_PART}(/{_PART})*$", max_length=240)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(ge=1)]


READING = {"reading": True}  # the context in which a record is made of what another version may have written


def _keep_unknown(value: Any, validate: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    try:
        return validate(value)
    except ValidationError:
        if info.context == READING and isinstance(value, str):
            return value
        raise


class Informs:
    """Mark a field whose known values are information only. When a file is read, an unknown text is kept; when a record
    is created, it is refused. In the JSON schema the known values are examples. Fields whose values change what a
    reader must do are in json_files.LISTS."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return with_info_wrap_validator_function(_keep_unknown, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        found = handler(schema)
        found.pop("pattern", None)
        return {"examples": found.pop("enum"), **found} if "enum" in found else found


INFORMS = Informs()


class Record(BaseModel):
    """The base of all records: immutable, refuses unknown fields when it is created, and NaN or infinity."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, json_schema_serialization_defaults_required=True
    )


class ArrayRef(Record):
    """A tensor in a file of its own: little-endian, C order, nothing else."""

    path: BundlePath = Field(description="the file")
    dtype: Literal["float16", "float32", "int32", "int64", "uint8"] = Field(description="numpy's name of its type")
    shape: tuple[Count, ...] = Field(description="its axes in order")

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * np.dtype(self.dtype).itemsize


def _from_word(value: Any) -> Any:
    return WORDS.get(value, value) if isinstance(value, str) else value


def _to_word(value: float) -> float | str:
    return value if abs(value) < inf else "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


AnyFloat = Annotated[
    float,
    Field(allow_inf_nan=True),
    BeforeValidator(_from_word),
    PlainSerializer(_to_word, when_used="json"),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"enum": list(WORDS)}]}),
]


def _from_digits(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, str) and value.removeprefix("-").isdecimal() and value.isascii():
        return int(value)
    if info.mode == "json":
        raise ValueError("a seed is a string of decimal digits")
    return value


Seed = Annotated[  # int in Python, a string in JSON, where numbers above 2^53 lose their last digits
    int,
    Field(ge=-(2**63), le=2**64 - 1),
    BeforeValidator(_from_digits),
    PlainSerializer(str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": "^-?[0-9]+$"}),
]
