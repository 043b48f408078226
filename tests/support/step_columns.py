"""Step tables by columns, as tests/golden/steps.json has them."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from pocketdiffusion.runtime.sampling.step_table import Step, StepTable

COLUMNS = tuple(field.name for field in fields(Step))
SCALARS = tuple(field.name for field in fields(StepTable) if field.name != "rows")


def pack_steps(table: StepTable) -> dict[str, Any]:
    """Entry i of each column belongs to row i."""
    columns = {name: [getattr(row, name) for row in table.rows] for name in COLUMNS}
    return {name: getattr(table, name) for name in SCALARS} | columns


def unpack_steps(fields: Mapping[str, Any]) -> StepTable:
    """The inverse of `pack_steps`."""
    rows = zip(*([tuple(b) for b in fields[n]] if n == "b" else fields[n] for n in COLUMNS), strict=True)
    return StepTable(**{name: fields[name] for name in SCALARS}, rows=tuple(Step(*row) for row in rows))
