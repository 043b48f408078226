"""Step tables in JSON: by columns, which is short, and of one type each, which Kotlin and Swift read as it is."""

from typing import Annotated, Any, Literal, Self

from pydantic import GetCoreSchemaHandler, GetPydanticSchema, model_validator
from pydantic_core import CoreSchema, core_schema

from pocketdiffusion.runtime.bundle.record import Count, Record, Size
from pocketdiffusion.runtime.sampling.step_table import Step, StepTable

COLUMNS = tuple(Step.__dataclass_fields__)
SCALARS = tuple(name for name in StepTable.__dataclass_fields__ if name != "rows")


class StepColumns(Record):
    """A StepTable (see step_table.py for the arithmetic) by columns: entry i of each column belongs to row i."""

    sampler: str
    prediction_type: Literal["epsilon", "v_prediction", "sample"]
    steps: Size
    start: Count
    init_noise_sigma: float
    signal_scale: float
    noise_scale: float
    timestep: tuple[float, ...]
    input_scale: tuple[float, ...]
    p: tuple[float, ...]
    q: tuple[float, ...]
    a: tuple[float, ...]
    b: tuple[tuple[float, ...], ...]
    c: tuple[float, ...]

    @model_validator(mode="after")
    def _columns_match(self) -> Self:
        if {len(c) for c in (self.input_scale, self.p, self.q, self.a, self.b, self.c)} != {len(self.timestep)}:
            raise ValueError(f"the columns of {self.sampler} at {self.steps} steps differ in length")
        if any(len(b) > row for row, b in enumerate(self.b, 1)):
            raise ValueError(f"{self.sampler} at {self.steps} steps wants values of m from before its first row")
        return self


def pack_steps(table: StepTable) -> StepColumns:
    """The table as the manifest writes it, every float kept to the last bit. ValueError for one that cannot be run."""
    fields: dict[str, Any] = {name: getattr(table, name) for name in SCALARS}
    fields |= {name: tuple(getattr(row, name) for row in table.rows) for name in COLUMNS}
    return StepColumns(**fields)


def unpack_steps(columns: StepColumns) -> StepTable:
    """The inverse of `pack_steps`."""
    rows = zip(*(getattr(columns, name) for name in COLUMNS), strict=True)
    scalars = {name: getattr(columns, name) for name in SCALARS}
    return StepTable(**scalars, rows=tuple(Step(*row) for row in rows))


def _schema(_: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
    columns = handler(StepColumns)
    return core_schema.json_or_python_schema(
        json_schema=core_schema.no_info_after_validator_function(unpack_steps, columns),
        python_schema=core_schema.is_instance_schema(StepTable),
        serialization=core_schema.plain_serializer_function_ser_schema(pack_steps, return_schema=columns),
    )


PackedSteps = Annotated[StepTable, GetPydanticSchema(_schema)]  # a StepTable in Python, StepColumns in JSON
