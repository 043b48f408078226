"""The file of step tables in a bundle: the only module that writes and reads it."""

from pathlib import Path

import numpy as np
from pydantic import Field, JsonValue

from pocketdiffusion.runtime.bundle.file_table import STEPS
from pocketdiffusion.runtime.bundle.picture_records import Scheduler
from pocketdiffusion.runtime.record import READING, BundlePath
from pocketdiffusion.runtime.sampling.stored_tables import StoredTables, TableFile, check_index, table_bytes


class Steps(StoredTables):
    """The index of the step tables, in the pipeline file."""

    file: BundlePath = Field(description="the step tables of all samplers: columns of little-endian float32")
    default_sampler: str = Field(description="the checkpoint's own sampler, by its name in `samplers`")
    replaced: str | None = Field(
        description="the class of the checkpoint's own scheduler, where another sampler was put in its place"
    )
    scheduler: dict[str, JsonValue] = Field(
        description="the settings of the checkpoint's scheduler in diffusers: where the tables come from"
    )


def write_steps(folder: Path, tables: TableFile, scheduler: Scheduler) -> Steps:
    """Write the tables below `folder`; return their index."""
    path = f"{STEPS}/tables.bin"
    (folder / path).parent.mkdir(exist_ok=True)
    (folder / path).write_bytes(tables.raw)
    return Steps(
        **{name: getattr(tables.index, name) for name in StoredTables.model_fields},
        file=path,
        default_sampler=scheduler.default_sampler,
        replaced=scheduler.replaced,
        scheduler=scheduler.config,
    )


def read_steps(raw: bytes, steps: Steps) -> tuple[TableFile, Scheduler]:
    """Return the tables in the bytes of `steps.file`, and the scheduler settings that they come from. Raise ValueError
    if a number is not finite, if there are more or fewer than the index states, or if the index contradicts itself."""
    check_index(steps)
    if steps.default_sampler not in steps.samplers:
        raise ValueError(f"there is no table of the default sampler {steps.default_sampler}")
    if len(raw) != (size := table_bytes(steps)):
        raise ValueError(f"it has {len(raw)} bytes, and its index requires {size}")
    if not np.isfinite(np.frombuffer(raw, "<f4")).all():
        raise ValueError("a number of a step table is not finite")
    scheduler = Scheduler(config=steps.scheduler, default_sampler=steps.default_sampler, replaced=steps.replaced)
    fields = {name: getattr(steps, name) for name in StoredTables.model_fields}
    index = StoredTables.model_validate(fields, context=READING)
    return TableFile(index, raw), scheduler
