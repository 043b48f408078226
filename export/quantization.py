"""The inputs of the package quantize for one model: its modules, the drawings to measure on, and their names."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path

from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.component import Component, load_module
from pocketdiffusion.export.families import program
from pocketdiffusion.export.matrices import weights_of
from pocketdiffusion.export.parent import follow_parent
from pocketdiffusion.export.reference.record import Request, record
from pocketdiffusion.export.reference.recording_facts import recording_facts
from pocketdiffusion.export.reference.torch_runner import Read, TorchRunner, open_rewritten
from pocketdiffusion.quantize.measure.activation_stats import ActivationStatistics, empty_statistics
from pocketdiffusion.quantize.measure.analysis import SensitivityAnalysis, open_analysis
from pocketdiffusion.quantize.measure.cache import SensitivityTable, open_table, table_key
from pocketdiffusion.quantize.measure.fake_quantize import round_activations
from pocketdiffusion.quantize.measure.sensitivity import TOGETHER, Change, Drawings, MeasuredComponent
from pocketdiffusion.quantize.observers import METHOD
from pocketdiffusion.quantize.quantized_tensor import restore, store
from pocketdiffusion.quantize.scheme import FLOAT32, Plan
from pocketdiffusion.runtime.bundle.manifest import Calibration
from pocketdiffusion.runtime.progress import Progress
from pocketdiffusion.runtime.verify.recording import Trajectory, digest_arrays


def open_quantized(part: Component, rewrites: Sequence[str], plan: Plan, *, litert: bool = False) -> TorchRunner:
    """Return a runner of the component after `rewrites`, with weights and activations rounded by `plan`; with the
    arithmetic of LiteRT if `litert` is set.

    A rewrite that calls an operator without its module hides that operator's input: pass no rewrites if `plan` has
    activations other than "float".
    """

    def quantized(name: str, read: Read) -> Read:
        scheme = plan.schemes.get(name, FLOAT32)
        if scheme.kind == "float":
            return read if scheme == FLOAT32 else lambda: restore(store(read(), scheme))
        return partial(restore, store(read(), scheme))

    runner = open_rewritten(part, rewrites, quantized)
    round_activations(runner.module, plan, litert=litert)
    return runner


@dataclass(frozen=True)
class Calibrated:
    """The activation statistics of a model, and the record of the prompts that they were counted on."""

    statistics: ActivationStatistics
    calibration: Calibration


def calibrate(
    checkpoint: Checkpoint,
    parts: Sequence[Component],
    requests: Sequence[Request],
    progress: Progress = lambda line: None,
    *,
    counting: bool = METHOD != "minmax",
) -> Calibrated:
    """Draw `requests` with the original, a few at a time, and observe the inputs and outputs of its convolutions and
    linear layers: their range, and with `counting` their histograms. Raise ProofError, naming the weight, if a value is
    not finite."""
    statistics = observe_nothing(parts, counting=counting)
    sha256 = hashlib.sha256()
    for first in range(0, len(requests), TOGETHER):
        few = requests[first : first + TOGETHER]
        progress(f"prompts {first + 1} to {first + len(few)} of {len(requests)}")
        for trajectory in record(checkpoint, parts, few, watch=statistics.watch):
            for array in digest_arrays(trajectory):
                sha256.update(array.tobytes())
    calibration = Calibration(
        prompts=tuple(request.prompt for request in requests),
        seeds=tuple(request.seed for request in requests),
        steps=requests[0].steps,
        guidance=requests[0].guidance,
        sha256=sha256.hexdigest(),
    )
    return Calibrated(statistics, calibration)


def observe_nothing(parts: Sequence[Component], *, counting: bool = METHOD != "minmax") -> ActivationStatistics:
    """Return empty statistics for the convolutions and linear layers of each component."""
    return empty_statistics(
        {part.spec.name: [n for n, w in weights_of(part).items() if w.operator != "embedding"] for part in parts},
        counting=counting,
    )


@contextmanager
def analyse(
    checkpoint: Checkpoint,
    parts: Sequence[Component],
    requests: Sequence[Request],
    *,
    file: Path | None = None,
    workers: int | None = None,
    progress: Progress = lambda line: None,
) -> Iterator[SensitivityAnalysis]:
    """Open the sensitivity analysis of a model on the prompts `requests`. `file` keeps its table from run to run;
    `workers` processes measure, by default one per core. Raise UserError if the system ends one of them."""
    subjects, drawings = subjects_of(parts), drawings_of(checkpoint, parts, requests)
    key = analysis_key(checkpoint, parts, requests) if file is not None else ""
    table = SensitivityTable() if file is None else open_table(file, key, progress)
    opened = open_analysis(subjects, drawings, follow_parent, table=table, workers=workers, progress=progress)
    with opened as analysis:
        yield analysis


def subjects_of(parts: Sequence[Component]) -> dict[str, MeasuredComponent]:
    """Return each component by name as a subject of the sensitivity analysis."""
    return {
        part.spec.name: MeasuredComponent(
            spec=part.spec,
            weights=weights_of(part),
            vector_bytes=sum(4 * prod(ref.shape) for ref in part.weights.values() if len(ref.shape) < 2),
            load=partial(load_module, part),
            run=partial(open_quantized, part, ()),
            identity=part.weights,
        )
        for part in parts
    }


def drawings_of(checkpoint: Checkpoint, parts: Sequence[Component], requests: Sequence[Request]) -> Drawings:
    """Return the drawings of `requests` that sensitivities are measured on."""
    draw = partial(_draw, checkpoint, parts, requests)
    return Drawings(draw, program(checkpoint, parts), len(requests), requests[0].steps, requests[0].guidance)


def _draw(
    checkpoint: Checkpoint,
    parts: Sequence[Component],
    requests: Sequence[Request],
    numbers: Sequence[int],
    change: Change | None = None,
) -> list[Trajectory]:
    few = [requests[number] for number in numbers]
    return record(checkpoint, parts, few, watch=change, streamed=change is None)


def analysis_key(checkpoint: Checkpoint, parts: Sequence[Component], requests: Sequence[Request]) -> str:
    """Return the key of a sensitivity table: the model with its tokenizers (all files of each folder, including special
    and added tokens), the size of its pictures, the prompts, the libraries, and the version of the code."""
    facts = recording_facts(checkpoint, parts, requests)
    return table_key(facts)
