"""The file of step tables: the one place that writes them and the one that reads them."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, JsonValue

from pocketdiffusion.runtime.bundle.file_table import STEPS
from pocketdiffusion.runtime.bundle.json_files import decode, encode
from pocketdiffusion.runtime.bundle.manifest import Scheduler
from pocketdiffusion.runtime.bundle.record import BundlePath, Record
from pocketdiffusion.runtime.bundle.step_columns import PackedSteps
from pocketdiffusion.runtime.sampling.step_table import StepTable


class Steps(Record):
    """The index of the step tables, in the pipeline file."""

    file: BundlePath = Field(description="the step tables of all samplers")
    default_sampler: str = Field(description="the checkpoint's own sampler, by its name in the tables")
    replaced: str | None = Field(
        description="the class of the checkpoint's own scheduler, where another sampler was put in its place"
    )
    scheduler: dict[str, JsonValue] = Field(
        description="the settings of the checkpoint's scheduler in diffusers: where the tables come from"
    )


class Tables(Record):
    """steps/tables.json."""

    tables: tuple[PackedSteps, ...] = Field(description="each sampler at each number of steps")


def write_steps(folder: Path, tables: Sequence[StepTable], scheduler: Scheduler) -> Steps:
    """Write the tables below `folder`; return their index."""
    path = f"{STEPS}/tables.json"
    (folder / path).parent.mkdir(exist_ok=True)
    (folder / path).write_bytes(encode(Tables(tables=tuple(tables))))
    return Steps(
        file=path,
        default_sampler=scheduler.default_sampler,
        replaced=scheduler.replaced,
        scheduler=scheduler.config,
    )


def read_steps(raw: bytes, steps: Steps) -> tuple[tuple[StepTable, ...], Scheduler]:
    """The tables in the bytes of `steps.file`, and the settings that they come from."""
    scheduler = Scheduler(config=steps.scheduler, default_sampler=steps.default_sampler, replaced=steps.replaced)
    return decode(raw, Tables).tables, scheduler
