"""The surveys of an original: what recipes ask of its components, measured on the search prompts, once.

    with open_surveys(checkpoint, parts, requests) as surveys:
        recipe.plan(weights_of(part), surveys.of("unet", "onnx", "ort"))

The work is done by processes, one a core. Nothing is drawn and none is started before the first question.
"""

import hashlib
import inspect
import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffusers
import numpy as np
import torch
import transformers

from pocketdiffusion.export import quantized, sensitivity
from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.checkpoints.tokenizer_files import digest
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.parent import follow_parent
from pocketdiffusion.export.planned import weights_of
from pocketdiffusion.export.reference import pipeline, recorder, scheduler, streamed_weights
from pocketdiffusion.export.reference import record as reference
from pocketdiffusion.export.reference.record import Request
from pocketdiffusion.quantize import kmeans as palette
from pocketdiffusion.quantize import qparams as spans
from pocketdiffusion.quantize import quantized_tensor as stored
from pocketdiffusion.quantize.measure.cache import Damages, Key, open_damages
from pocketdiffusion.quantize.qparams import Span
from pocketdiffusion.quantize.scheme import Plan, Scheme
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.verify import recording as trajectory

Say = Callable[[str], None]
LINES = 20  # of progress in a measurement
CODE = (
    sensitivity,
    quantized,
    reference,
    trajectory,
    stored,
    palette,
    spans,
    recorder,
    pipeline,
    scheduler,
    streamed_weights,
)  # that damages depend on


@dataclass(frozen=True)
class Surveys:
    """Measurements of one original. `folder` is for the recorded prompts, `done` for what was measured besides the
    damages: spans, and whether the prompts were recorded."""

    checkpoint: Checkpoint
    parts: Sequence[Component]
    requests: Sequence[Request]
    pool: Executor
    folder: Path
    damages: Damages
    say: Say
    done: dict[str, Any] = field(default_factory=dict)

    def of(self, component: str, format: str, profile: str) -> "ComponentSurvey":
        """What a recipe is given, for an artifact of that format and dialect."""
        return ComponentSurvey(self, component, format, profile)

    def measure(self, components: Iterable[str], schemes: Iterable[Scheme]) -> None:
        """Measures what each weight of `components` costs in each of `schemes`, as far as it is not known."""
        named = {part.spec.name: part for part in self.parts}
        missing: list[Key] = [
            (component, weight, scheme)
            for component in components
            for weight in weights_of(named[component])
            for scheme in schemes
            if (component, weight, scheme) not in self.damages.found
        ]
        if not missing:
            return
        self._record()
        taken = {c: self._spans(named[c]) for c in {c for c, _, s in missing if s.activation in ("int8", "int16")}}
        jobs: dict[Future[float], Key] = {}
        for component, weight, scheme in missing:
            span = taken.get(component, {}).get(weight)
            job = self.pool.submit(sensitivity.measure_damage, named[component], weight, scheme, span, self.folder)
            jobs[job] = component, weight, scheme
        every = -(-len(jobs) // LINES)
        for number, job in enumerate(as_completed(jobs), 1):
            self.damages.add(jobs[job], job.result())
            if number % every == 0 or number == len(jobs):
                self.say(f"damage of single weights: {number} of {len(jobs)}, {jobs[job][0]}")

    def pictures(self, schemes: sensitivity.Schemes) -> list[float]:
        """PSNR (dB) of the picture of each prompt, drawn with the components of `schemes` quantized."""
        self._record()
        plans = {component: Plan("search", each) for component, each in schemes.items()}
        return self._by_prompts(sensitivity.measure_pictures, self.checkpoint, self.parts, plans, self.requests)

    def redrawn(self, schemes: Mapping[str, Scheme]) -> list[float]:
        """PSNR (dB) of the picture of each prompt, encoded by the quantized VAE encoder and decoded again."""
        self._record()
        return self._by_prompts(sensitivity.measure_redrawn, self.parts, Plan("search", schemes))

    def forced(self, schemes: sensitivity.Schemes) -> dict[str, float]:
        """By component: the least PSNR (dB) of any output on any recorded call, teacher-forced."""
        self._record()
        jobs = {
            part.spec.name: [
                self.pool.submit(
                    sensitivity.measure_forced, part, Plan("search", schemes[part.spec.name]), few, self.folder
                )
                for few in self._groups()
            ]
            for part in self.parts
        }
        return {component: min(job.result() for job in each) for component, each in jobs.items()}

    def _by_prompts(self, work: Callable[..., list[float]], *arguments: Any) -> list[float]:
        jobs = [self.pool.submit(work, *arguments, few, self.folder) for few in self._groups()]
        return [db for job in jobs for db in job.result()]

    def _groups(self) -> list[range]:
        """The numbers of all prompts, a few each: as many whatever the number of processes."""
        count = len(self.requests)
        return [
            range(first, min(first + sensitivity.TOGETHER, count)) for first in range(0, count, sensitivity.TOGETHER)
        ]

    def _record(self) -> None:
        if "recorded" not in self.done:
            self.say(f"drawing {len(self.requests)} search prompts with the original")
            self.pool.submit(
                sensitivity.record_prompts, self.checkpoint, self.parts, self.requests, self.folder
            ).result()
            self.done["recorded"] = True

    def _spans(self, part: Component) -> dict[str, Span]:
        name = f"spans of {part.spec.name}"
        if name not in self.done:
            self.done[name] = self.pool.submit(sensitivity.measure_spans, part, self.folder).result()
        found: dict[str, Span] = self.done[name]
        return found


@dataclass(frozen=True)
class ComponentSurvey:
    """As recipes.Survey asks for it."""

    surveys: Surveys
    component: str
    format: str
    profile: str

    def damage(self, scheme: Scheme) -> Mapping[str, float]:
        """Measured once, for all weights of the component."""
        self.surveys.measure([self.component], [scheme])
        found = self.surveys.damages.found
        return {
            w: damage for (c, w, s), damage in sorted(found.items(), key=_name) if (c, s) == (self.component, scheme)
        }


def _name(entry: tuple[Key, float]) -> str:
    return entry[0][1]


@contextmanager
def open_surveys(
    checkpoint: Checkpoint,
    parts: Sequence[Component],
    requests: Sequence[Request],
    *,
    file: Path | None = None,
    workers: int | None = None,
    say: Say = lambda line: None,
) -> Iterator[Surveys]:
    """The surveys of an original on the prompts `requests`. `file` keeps damages from run to run; `workers` processes
    measure, by default one a core. Raises UserError where the system ends one of them."""
    damages = Damages() if file is None else open_damages(file, fingerprint(checkpoint, parts, requests), say)
    context = get_context("spawn")  # torch has threads, which do not survive a fork
    with TemporaryDirectory() as folder, ProcessPoolExecutor(workers or os.cpu_count(), context, _begin) as pool:
        try:
            yield Surveys(checkpoint, parts, requests, pool, Path(folder), damages, say)
        except BrokenProcessPool:
            again = "run again" if file is None else "run again, it goes on where it was"
            raise UserError(f"a measuring process was ended, probably for want of memory: {again}") from None
        finally:
            pool.shutdown(cancel_futures=True)


def fingerprint(checkpoint: Checkpoint, parts: Sequence[Component], requests: Sequence[Request]) -> str:
    """Of all that damages depend on: the model, the size of its pictures, the prompts, and the code that measures."""
    facts = {
        "weights": checkpoint.fingerprint,
        "derivations": {p.spec.name: [tensor.derivation for tensor in p.weights.values()] for p in parts},
        "configs": {name: dict(config) for name, config in checkpoint.configs.items()},
        "scheduler": dict(checkpoint.scheduler),
        "sampler": checkpoint.sampler,
        "classes": dict(checkpoint.model_index),
        "tokenizers": {name: digest(folder) for name, folder in checkpoint.tokenizers.items()},
        "shapes": {part.spec.name: [tensor.shape for tensor in part.spec.inputs] for part in parts},
        "requests": [asdict(request) for request in requests],
        "code": [inspect.getsource(module) for module in CODE],
        "diffusers": diffusers.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _begin() -> None:
    """Of a process that measures: one thread; it ends with the one that asked, which alone hears of an interrupt."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    follow_parent()
