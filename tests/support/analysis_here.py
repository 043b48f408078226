"""A sensitivity analysis in this process, without processes of its own."""

from collections.abc import Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.families import components
from pocketdiffusion.export.quantization import drawings_of, subjects_of
from pocketdiffusion.export.reference.record import Request
from pocketdiffusion.quantize.measure.analysis import SensitivityAnalysis
from pocketdiffusion.quantize.measure.cache import SensitivityTable
from pocketdiffusion.runtime.progress import Progress


class Here(Executor):
    """Does the work at once."""

    def submit(self, work: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(work(*arguments, **named))
        return future


def analyse_here(
    checkpoint: Checkpoint,
    requests: Sequence[Request],
    folder: Path,
    table: SensitivityTable,
    progress: Progress = lambda line: None,
) -> SensitivityAnalysis:
    """Return the analysis of a checkpoint, which records its prompts in `folder`, an empty one."""
    parts = components(checkpoint)
    drawings = drawings_of(checkpoint, parts, requests)
    return SensitivityAnalysis(subjects_of(parts), drawings, Here(), folder, table, progress)
