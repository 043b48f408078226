"""Sensitivity analysis of an original: measurements on the search prompts, which recipes read. Each is made only once.

The work is done by one process for each core. Nothing is drawn and no process is started before the first measurement.
"""

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from pocketdiffusion.quantize.measure import sensitivity
from pocketdiffusion.quantize.measure.cache import Key, SensitivityTable
from pocketdiffusion.quantize.measure.sensitivity import Drawings, MeasuredComponent, Schemes
from pocketdiffusion.quantize.qparams import ValueRange
from pocketdiffusion.quantize.scheme import Plan, Scheme
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.progress import Progress

LINES = 20  # lines of progress in a measurement


@dataclass(frozen=True)
class SensitivityAnalysis:
    """Measurements of one original. `folder`: where the recorded prompts are. `done`: results other than
    sensitivities, which are value ranges and whether the prompts were recorded."""

    subjects: Mapping[str, MeasuredComponent]
    drawings: Drawings
    pool: Executor
    folder: Path
    table: SensitivityTable
    progress: Progress
    done: dict[str, Any] = field(default_factory=dict)

    def of(self, component: str, format: str, profile: str) -> "ComponentAnalysis":
        """Return the analysis of one component for an artifact of this format and profile, as recipes read it."""
        return ComponentAnalysis(self, component, format, profile)

    def measure(self, components: Iterable[str], schemes: Iterable[Scheme]) -> None:
        """Measure the sensitivity of each weight of `components` to each of `schemes` that the table does not have
        yet."""
        missing: list[Key] = [
            (component, weight, scheme)
            for component in components
            for weight in self.subjects[component].weights
            for scheme in schemes
            if (component, weight, scheme) not in self.table.found
        ]
        if not missing:
            return
        self._record()
        ranges = {c: self._ranges(c) for c in {c for c, _, s in missing if s.activation in ("int8", "int16")}}
        jobs: dict[Future[float], Key] = {}
        for component, weight, scheme in missing:
            subject, value_range = self.subjects[component], ranges.get(component, {}).get(weight)
            job = self.pool.submit(sensitivity.measure_sensitivity, subject, weight, scheme, value_range, self.folder)
            jobs[job] = component, weight, scheme
        every = -(-len(jobs) // LINES)
        for number, job in enumerate(as_completed(jobs), 1):
            self.table.add(jobs[job], job.result())
            if number % every == 0 or number == len(jobs):
                self.progress(f"sensitivity of single weights: {number} of {len(jobs)}, {jobs[job][0]}")

    def pictures(self, schemes: Schemes) -> list[float]:
        """Return the PSNR (dB) of each prompt's picture, drawn with quantized components. `schemes`: by component
        and weight."""
        self._record()
        plans = {component: Plan("search", each) for component, each in schemes.items()}
        return self._by_prompts(sensitivity.measure_pictures, self.drawings, plans)

    def redrawn(self, schemes: Mapping[str, Scheme]) -> list[float]:
        """Return the PSNR (dB) of each prompt's picture, encoded by the quantized VAE encoder and decoded by the
        original."""
        self._record()
        return self._by_prompts(sensitivity.measure_redrawn, self.subjects, Plan("search", schemes))

    def teacher_forced(self, schemes: Schemes) -> dict[str, float]:
        """Return, by component, the least PSNR (dB) of any output on any recorded call, teacher-forced."""
        self._record()
        work, few = sensitivity.measure_teacher_forced, sensitivity.groups(self.drawings.count)
        jobs = {
            name: [self.pool.submit(work, subject, Plan("search", schemes[name]), each, self.folder) for each in few]
            for name, subject in self.subjects.items()
        }
        return {component: min(job.result() for job in each) for component, each in jobs.items()}

    def _by_prompts(self, work: Callable[..., list[float]], *arguments: Any) -> list[float]:
        few = sensitivity.groups(self.drawings.count)
        jobs = [self.pool.submit(work, *arguments, each, self.folder) for each in few]
        return [db for job in jobs for db in job.result()]

    def _record(self) -> None:
        if "recorded" not in self.done:
            self.progress(f"drawing {self.drawings.count} search prompts with the original")
            self.pool.submit(sensitivity.record_prompts, self.drawings, self.folder).result()
            self.done["recorded"] = True

    def _ranges(self, component: str) -> dict[str, ValueRange]:
        name = f"ranges of {component}"
        if name not in self.done:
            job = self.pool.submit(sensitivity.measure_ranges, self.subjects[component], self.folder)
            self.done[name] = job.result()
        found: dict[str, ValueRange] = self.done[name]
        return found


@dataclass(frozen=True)
class ComponentAnalysis:
    """The analysis of one component for one artifact; implements recipe.Analysis by measurements."""

    analysis: SensitivityAnalysis
    component: str
    format: str
    profile: str

    def sensitivity(self, scheme: Scheme) -> Mapping[str, float]:
        """Return the sensitivity to `scheme` of each weight of the component; measure those that are missing."""
        self.analysis.measure([self.component], [scheme])
        found = self.analysis.table.found
        return {w: error for (c, w, s), error in sorted(found.items(), key=_name) if (c, s) == (self.component, scheme)}


def _name(entry: tuple[Key, float]) -> str:
    return entry[0][1]


@contextmanager
def open_analysis(
    subjects: Mapping[str, MeasuredComponent],
    drawings: Drawings,
    begin: Callable[[], None],
    *,
    table: SensitivityTable,
    workers: int | None = None,
    progress: Progress = lambda line: None,
) -> Iterator[SensitivityAnalysis]:
    """Open the analysis of an original on the search prompts. `begin` runs first in each of `workers` processes
    (default: one for each core). Raises UserError if the system kills one of them."""
    context = get_context("spawn")  # torch has threads, which do not survive a fork
    count = workers or os.cpu_count()
    with TemporaryDirectory() as folder, ProcessPoolExecutor(count, context, _begin, (begin,)) as pool:
        try:
            yield SensitivityAnalysis(subjects, drawings, pool, Path(folder), table, progress)
        except BrokenProcessPool:
            again = "run again" if table.file is None else "run again, it continues where it was"
            raise UserError(f"a measuring process was killed, probably because memory ran out: {again}") from None
        finally:
            pool.shutdown(cancel_futures=True)


def _begin(begin: Callable[[], None]) -> None:
    """Prepare a measuring process: one thread, and interrupts are ignored, because the parent process handles them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    begin()
