"""What the operators of a model take and give while it draws: the histograms that calibration looks at.

Prompts are drawn a few at a time, and each value is counted when it is computed, so that memory does not grow with
their number.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.planned import weights_of
from pocketdiffusion.export.reference.record import Request, record
from pocketdiffusion.quantize.observers import METHOD, Histogram, choose_span
from pocketdiffusion.quantize.qparams import Span
from pocketdiffusion.runtime.bundle.manifest import Calibration
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.verify.recording import digest_arrays

TOGETHER = 4  # prompts that are drawn before what was recorded of them is let go
Say = Callable[[str], None]


@dataclass(frozen=True)
class Observed:
    """Histograms by component and weight: of what its operator took, of what it gave. `calibration` says on what."""

    inputs: Mapping[str, Mapping[str, Histogram]]
    outputs: Mapping[str, Mapping[str, Histogram]]
    calibration: Calibration

    def spans(self, component: str, bits: int) -> tuple[dict[str, Span], dict[str, Span]]:
        """Of every operator of a component: of what it takes, of what it gives."""
        inputs, outputs = (
            {name: choose_span(histogram, METHOD, bits) for name, histogram in found[component].items()}
            for found in (self.inputs, self.outputs)
        )
        return inputs, outputs


def observe(
    checkpoint: Checkpoint, parts: Sequence[Component], requests: Sequence[Request], say: Say = lambda line: None
) -> Observed:
    """Draws `requests` with the original and counts what its convolutions and linear layers take and give. Raises
    ProofError, naming the weight, where that is not finite."""
    names = {part.spec.name: [n for n, w in weights_of(part).items() if w.operator != "embedding"] for part in parts}
    inputs = {component: {name: Histogram() for name in found} for component, found in names.items()}
    outputs = {component: {name: Histogram() for name in found} for component, found in names.items()}

    def watch(component: str, module: nn.Module) -> None:
        for name in names[component]:
            owner = module.get_submodule(name.rpartition(".")[0])
            owner.register_forward_hook(partial(_count, name, inputs[component][name], outputs[component][name]))

    digest = hashlib.sha256()
    for first in range(0, len(requests), TOGETHER):
        few = requests[first : first + TOGETHER]
        say(f"prompts {first + 1} to {first + len(few)} of {len(requests)}")
        for trajectory in record(checkpoint, parts, few, watch=watch):
            for array in digest_arrays(trajectory):
                digest.update(array.tobytes())
    return Observed(
        inputs,
        outputs,
        Calibration(
            prompts=tuple(request.prompt for request in requests),
            seeds=tuple(request.seed for request in requests),
            steps=requests[0].steps,
            guidance=requests[0].guidance,
            sha256=digest.hexdigest(),
        ),
    )


def check_finite(weight: str, x: Tensor) -> None:
    """Raises ProofError where `x`, which the original computes at the operator of `weight`, is not finite."""
    if not x.isfinite().all():
        raise ProofError(f"{weight}: the original computes values there that are not finite: download it again")


def _count(
    weight: str, taken: Histogram, given: Histogram, owner: nn.Module, arguments: tuple[Tensor, ...], result: Any
) -> None:
    for histogram, x in ((taken, arguments[0]), (given, result)):
        check_finite(weight, x)
        histogram.add(x.numpy())
