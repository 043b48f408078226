"""Step tables of a bundle: one binary file with the tables of every sampler at 1 to 50 steps, and an index in JSON.

The file is a sequence of columns. A column is float32, little-endian, one value after the other without gaps; the file
has no header, padding or compression. The index states where each column begins.

For one sampler the tables of 1, 2, ..., 50 steps follow each other, so the column `a` has first the `a` of the only row
of the table of 1 step, then the `a` of each row of the table of 2 steps, and so on. `rows` is a list of 50 numbers:
entry n - 1 is the number of rows of the table of n steps (n for most samplers, n + 1 for pndm from 2 steps on, 0 if
the sampler refuses that count for this model). So the table of n steps has its first row at place

    first = rows[0] + rows[1] + ... + rows[n - 2]

of every column of the sampler, and a column has as many values as the sum of `rows`. The columns are

    timestep, input_scale, p, q, a, b0, b1, b2, b3, b4, c, signal_scale, noise_scale

`columns` has, for a column that is in the file, the byte where it begins; `constants` has, for every other column, the
one number that all its values are equal to. Equal columns of several samplers begin at the same byte.

A run at n steps begins at a start s (0 without a picture; image to image skips the first s rows) and uses the rows s,
s + 1, ... to the last. Of each column, row r has the value at place first + r, or the constant. step_table.py has the
meaning of the columns. The first rows of a run differ in some columns, since no outputs precede them: for each k below
the length of `restarts`, the row s + k reads the columns that restarts[k] names from there (again a byte or a
constant, and again at place first + s + k); its other columns are as above. In short:

    value(name, n, s, r):                                   r >= s; first is as above
        if r - s < length of restarts: holders = [restarts[r - s], the sampler], else [the sampler]
        for each holder:
            if name in holder.constants: return holder.constants[name]
            if name in holder.columns:   return the float32 at byte holder.columns[name] + 4 * (first + r)

Size: each column has 5,100 bytes (of pndm 5,296) for 50 counts of steps. The largest file of 96 schedules, of
v-prediction over Karras' sigmas spaced by linspace, has 49 columns, 253,232 bytes (247.3 KiB); the limit is 250 KiB.
No two of its columns are equal where both are read, and none equals another one shifted by up to four rows.

Without a picture the latents begin as init_noise_sigma[n - 1] * noise. Image to image, also with s = 0, begins as
signal_scale * image + noise_scale * noise, with both scales of row s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.record import INFORMS, Count, Record
from pocketdiffusion.runtime.sampling.samplers import sampler_names, step_table
from pocketdiffusion.runtime.sampling.schedule import NoiseSchedule, check_start
from pocketdiffusion.runtime.sampling.step_table import REACH, Step, StepTable

Float32 = NDArray[np.float32]
Column = tuple[Float32, NDArray[np.bool_]]  # float32 [places], and for each place whether it is read

MOST_STEPS = 50
ROW = ("timestep", "input_scale", "p", "q", "a", *(f"b{j}" for j in range(REACH)), "c")
SCALES = ("signal_scale", "noise_scale")
COLUMNS = (*ROW, *SCALES)


class Columns(Record):
    """Where columns are: in the file, or a number that stands for the whole column."""

    columns: Annotated[
        dict[str, Count],
        Field(description="by the column's name, the byte of the table file where its float32 values begin"),
    ]
    constants: Annotated[
        dict[str, float], Field(description="by the column's name, the number that all its values are")
    ]


class SamplerTables(Columns):
    """The tables of one sampler. Every column is either in `columns` or in `constants`."""

    rows: Annotated[
        tuple[Count, ...],
        Field(description="rows of the table of 1, 2, 3, ... steps; 0: the sampler refuses that count for this model"),
    ]
    init_noise_sigma: Annotated[
        tuple[float, ...],
        Field(description="for 1, 2, 3, ... steps: without a picture the first latents are this times the noise"),
    ]
    restarts: Annotated[
        tuple[Columns, ...],
        Field(description="for the first rows s, s + 1, ... of a run: which of their columns are taken from here"),
    ]


class StoredTables(Record):
    """The index of the table file: what stored_tables.py describes."""

    prediction_type: Annotated[
        Literal["epsilon", "v_prediction", "sample"],
        INFORMS,
        Field(description="what the model's output is; the tables already hold what follows from it"),
    ]
    most_steps: Annotated[Count, Field(description="the largest count of steps that a table is there for")]
    samplers: Annotated[
        dict[str, SamplerTables],
        Field(description="by the sampler's name; one that cannot run this model is not there"),
    ]


@dataclass(frozen=True)
class TableFile:
    """The table file's bytes, and its index."""

    index: StoredTables
    raw: bytes


def write_tables(schedule: NoiseSchedule, most_steps: int = MOST_STEPS) -> TableFile:
    """Return the table file and its index: every sampler at 1 to `most_steps` steps, from every start.

    A sampler that refuses the schedule at every count is left out; a count that it refuses has no rows.
    """
    computed = {
        name: [_from_all_starts(name, schedule, n) for n in range(1, most_steps + 1)] for name in sampler_names()
    }
    computed = {name: tables for name, tables in computed.items() if any(tables)}
    pool: list[Column] = []
    columns = {name: _columns(name, tables) for name, tables in computed.items()}
    placed = {name: _place({**columns[name][0], **_scales(tables)}, pool) for name, tables in computed.items()}
    restarts = {name: [_place(row, pool) for row in columns[name][1]] for name in computed}
    offsets = np.cumsum([0, *(4 * len(values) for values, _ in pool)]).tolist()
    samplers = {
        name: SamplerTables(
            **_fields(placed[name], offsets),
            rows=tuple(len(starts[0].rows) if starts else 0 for starts in tables),
            init_noise_sigma=tuple(_digits(starts[0].init_noise_sigma) if starts else 0.0 for starts in tables),
            restarts=tuple(Columns(**_fields(row, offsets)) for row in restarts[name]),
        )
        for name, tables in computed.items()
    }
    raw = b"".join(values.astype("<f4").tobytes() for values, _ in pool)
    kind: Any = schedule.prediction_type
    return TableFile(StoredTables(prediction_type=kind, most_steps=most_steps, samplers=samplers), raw)


def table_bytes(index: StoredTables) -> int:
    """Return the size of the table file in bytes: the end of its last column."""
    ends = [0]
    for stored in index.samplers.values():
        for holder in (stored, *stored.restarts):
            ends += [offset + 4 * sum(stored.rows) for offset in holder.columns.values()]
    return max(ends)


def check_index(index: StoredTables) -> None:
    """Check that each sampler has an entry for each count of steps, and each column once: in the file, at a multiple of
    4 bytes, or as a constant. Raise ValueError, which names the sampler, if not."""
    for name, stored in index.samplers.items():
        for field, entries in (("rows", stored.rows), ("init_noise_sigma", stored.init_noise_sigma)):
            if len(entries) != index.most_steps:
                raise ValueError(f"{field} of {name} has {len(entries)} entries for {index.most_steps} counts of steps")
        if sorted((*stored.columns, *stored.constants)) != sorted(COLUMNS):
            raise ValueError(f"columns and constants of {name} do not have each of {', '.join(COLUMNS)} once")
        if len(stored.restarts) > REACH:
            raise ValueError(f"{name} has restarts for {len(stored.restarts)} rows, and at most {REACH} are allowed")
        for restart in stored.restarts:
            if restart.columns.keys() & restart.constants.keys() or {*restart.columns, *restart.constants} - {*ROW}:
                raise ValueError(f"a restart of {name} names a column other than {', '.join(ROW)}, or one twice")
        for holder in (stored, *stored.restarts):
            if odd := [column for column, offset in holder.columns.items() if offset % 4]:
                raise ValueError(f"the column {odd[0]} of {name} does not begin at a multiple of 4 bytes")


def read_table(index: StoredTables, raw: bytes, sampler: str, steps: int, start: int = 0) -> StepTable:
    """Return the table of `sampler` at `steps` steps from `start`, with the float32 numbers of the file.

    Raise UserError if the file has no such sampler, count of steps or start, ProofError if the index names a place that
    the file does not have.
    """
    if sampler not in index.samplers:
        raise UserError(f"this bundle has no sampler {sampler!r}: choose one of {', '.join(index.samplers)}")
    stored = index.samplers[sampler]
    rows = stored.rows[steps - 1] if 1 <= steps <= len(stored.rows) else 0
    if not rows:
        counts = _spell_counts([n for n, rows in enumerate(stored.rows, 1) if rows])
        raise UserError(f"this bundle has tables of {counts} steps for {sampler}, not of {steps}: choose one of these")
    check_start(start, rows)
    first = sum(stored.rows[: steps - 1])

    def column(holder: Columns, name: str, begin: int, end: int) -> list[float]:
        """Return the values of the rows from `begin` up to `end`."""
        if name in holder.constants:
            return [holder.constants[name]] * (end - begin)
        if name not in holder.columns:
            raise ProofError(f"the step tables of {sampler} have no column {name}: export the model again")
        at = holder.columns[name] + 4 * (first + begin)
        if at + 4 * (end - begin) > len(raw):
            raise ProofError(
                f"the step tables end at byte {len(raw)}, before the end of column {name} of {sampler}: export the "
                "model again"
            )
        values: list[float] = np.frombuffer(raw, "<f4", end - begin, at).tolist()
        return values

    columns = {name: column(stored, name, start, rows) for name in COLUMNS}
    for k, restart in enumerate(stored.restarts[: rows - start]):
        for name in {*restart.columns, *restart.constants}:
            columns[name][k] = column(restart, name, start + k, start + k + 1)[0]
    table = []
    for timestep, input_scale, p, q, a, *b, c in zip(*(columns[name] for name in ROW), strict=True):
        while len(b) > 1 and not b[-1]:
            b.pop()
        table.append(Step(timestep, input_scale, p, q, a, tuple(b), c))
    return StepTable(
        sampler=sampler,
        prediction_type=index.prediction_type,
        steps=steps,
        start=start,
        init_noise_sigma=stored.init_noise_sigma[steps - 1],
        signal_scale=columns["signal_scale"][0],
        noise_scale=columns["noise_scale"][0],
        rows=tuple(table),
    )


def _from_all_starts(sampler: str, schedule: NoiseSchedule, steps: int) -> list[StepTable]:
    """Return the tables of one count of steps from start 0, 1, ...; none if the sampler refuses that count."""
    try:
        table = step_table(sampler, schedule, steps)
    except UserError:
        return []
    return [table, *(step_table(sampler, schedule, steps, start) for start in range(1, len(table.rows)))]


def _row(row: Step) -> list[float]:
    """Return the values of ROW."""
    b = (*row.b, *(0.0,) * (REACH - len(row.b)))
    return [row.timestep, row.input_scale, row.p, row.q, row.a, *b, row.c]


def _scales(tables: Sequence[Sequence[StepTable]]) -> dict[str, Column]:
    """Return signal_scale and noise_scale for each row as a start."""
    values = np.array([[start.signal_scale, start.noise_scale] for starts in tables for start in starts], np.float32)
    return {name: (values[:, i], np.ones(len(values), bool)) for i, name in enumerate(SCALES)}


def _columns(sampler: str, tables: Sequence[Sequence[StepTable]]) -> tuple[dict[str, Column], list[dict[str, Column]]]:
    """Return the columns of ROW, and for k = 0, 1, ... the columns that replace them in row s + k of a run from s.

    Raise ValueError if a start changes more than REACH rows.
    """
    late = np.array([_row(row) for starts in tables if starts for row in starts[0].rows], np.float32)
    early, used = np.repeat(late[None], REACH, axis=0), np.zeros((REACH, len(late)), bool)
    first = 0
    for starts in tables:
        for table in starts:
            at = first + table.start
            rows = np.array([_row(row) for row in table.rows], np.float32)
            if (rows[REACH:] != late[at + REACH : at + len(rows)]).any():
                raise ValueError(f"{sampler} at {table.steps} steps from {table.start} is not a slice of its table")
            for k, row in enumerate(rows[:REACH]):
                early[k, at + k], used[k, at + k] = row, True
        first += len(starts)
    steady = np.concatenate([np.arange(len(starts)) >= REACH for starts in tables])

    late_columns: dict[str, Column] = {}
    restarts: list[dict[str, Column]] = [{} for _ in range(REACH)]
    for i, name in enumerate(ROW):
        values, known = late[:, i].copy(), steady.copy()
        differ = [bool((early[k, :, i] != values)[used[k] & known].any()) for k in range(REACH)]
        for k in range(REACH):  # fill the first rows of each table from a k whose values equal those of later rows
            if not differ[k]:
                values = np.where(used[k] & ~known, early[k, :, i], values)
                known |= used[k]
        for k in range(REACH):
            if differ[k] or (early[k, :, i] != values)[used[k] & known].any():
                restarts[k][name] = early[k, :, i], used[k]
        late_columns[name] = values, known
    while restarts and not restarts[-1]:
        restarts.pop()
    return late_columns, restarts


def _place(columns: Mapping[str, Column], pool: list[Column]) -> tuple[dict[str, int], dict[str, float]]:
    """Return the number in the pool of each column that is not constant, and the values of the constant columns."""
    shared: dict[str, int] = {}
    constants: dict[str, float] = {}
    for name, (values, used) in columns.items():
        distinct = np.unique(values[used])
        if len(distinct) <= 1:
            constants[name] = _digits(distinct[0]) if len(distinct) else 0.0
        else:
            shared[name] = _share(values, used, pool)
    return shared, constants


def _share(values: Float32, used: NDArray[np.bool_], pool: list[Column]) -> int:
    """Return the number of the column in `pool` that has these values wherever both are read. Add one if there is
    none."""
    for number, (others, taken) in enumerate(pool):
        both = used & taken if len(used) == len(taken) else None
        if both is not None and (values[both] == others[both]).all():
            pool[number] = (np.where(taken, others, values), used | taken)
            return number
    pool.append((np.where(used, values, np.float32(0)), used))
    return len(pool) - 1


def _fields(placed: tuple[dict[str, int], dict[str, float]], offsets: Sequence[int]) -> dict[str, Any]:
    """Return the fields of Columns."""
    shared, constants = placed
    return {"columns": {name: offsets[number] for name, number in shared.items()}, "constants": constants}


def _digits(value: float) -> float:
    """Return the float64 with the fewest digits that equals `value` in float32."""
    return float(str(np.float32(value)))


def _spell_counts(counts: Sequence[int]) -> str:
    """Return "1 to 50", or "1 to 24, 30" if some are missing."""
    runs: list[list[int]] = []
    for count in counts:
        if runs and runs[-1][-1] == count - 1:
            runs[-1][1:] = [count]
        else:
            runs.append([count])
    return ", ".join(" to ".join(map(str, run)) for run in runs)
