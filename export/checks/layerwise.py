"""Comparison of an artifact that computes in integers with torch, layer by layer.

In a sequence of roundings, a difference in the last digit changes some of them, and these change others: the outputs of
two correct engines are as far apart as each is from the original, and faults hide in that. So every layer in torch gets
the artifact's own results of the layers before it, and only its own result is compared. Correct ones differ by the few
values in the middle between two integers, and by the rounding of the operators between two layers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pocketdiffusion.export.backends.intermediate_outputs import LayerRunner
from pocketdiffusion.export.reference.torch_runner import TorchRunner
from pocketdiffusion.quantize.scheme import Plan
from pocketdiffusion.runtime.bundle.verdicts import Verdict
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.verify.check import Check
from pocketdiffusion.runtime.verify.metrics import Comparison, Tally
from pocketdiffusion.runtime.verify.recording import Trajectory, cases


class TeacherForcedModule:
    """A torch module whose layers are teacher-forced: each layer's result is replaced by the artifact's. `note` is
    called with the name, torch's result and the artifact's result of each layer, then of each output, one at a time,
    because all of them are much larger than a model."""

    def __init__(self, runner: TorchRunner, layers: Sequence[str], note: Callable[[str, Array, Array], None]) -> None:
        self.runner, self.note = runner, note
        self._given: Mapping[str, Array] = {}
        for layer in layers:
            runner.module.get_submodule(layer).register_forward_hook(self._force(layer))

    def __call__(self, inputs: Mapping[str, Array], given: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Run the module on `inputs`. `given` has the results of the artifact's layers for them, `outputs` the
        artifact's outputs."""
        self._given = given
        for name, expected in self.runner(inputs).items():
            self.note(name, expected, outputs[name])

    def _force(self, layer: str) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def force(owner: nn.Module, arguments: Any, result: Tensor) -> Tensor:
            given = self._given[layer].astype(np.float32)
            if given.size == result.numel():
                given = given.reshape(result.shape)
            self.note(layer, result.numpy(), given)
            return torch.from_numpy(given)

        return force


def judge_teacher_forced(
    check: Check, reference: TorchRunner, layers: LayerRunner, trajectories: Sequence[Trajectory], plan: Plan
) -> Verdict:
    """Return the verdict on the layer or output with the largest distance from torch. `reference` is the module as
    `plan` stores and computes it. Needs memory for the results of all layers in one call.

    Raise ProofError if the artifact does not name a layer that computes in integers, or a result has another size."""
    graph, names = reference.spec.name, layers.names
    for weight, scheme in plan.schemes.items():
        if scheme.activation != "float" and weight.rpartition(".")[0] not in names:
            raise ProofError(f"{graph}: the {layers.format} artifact names no layer for {weight}")
    tallies: dict[str, Tally] = {}
    label = ""

    def note(name: str, expected: Array, given: Array) -> None:
        if expected.shape != given.shape:
            raise ProofError(
                f"{layers.format} {graph}: the output of {name} has the shape {list(given.shape)} in the file, and "
                f"{list(expected.shape)} in torch"
            )
        tallies.setdefault(name, Tally()).add(Comparison(label, expected, given))

    module = TeacherForcedModule(reference, list(names), note)
    for trajectory in trajectories:
        for case in cases(graph, trajectory):
            label = case.label
            outputs, given = layers.run(case.inputs)
            module(case.inputs, given, outputs)
    verdicts = [tally.verdict(f"{graph}.{name.removeprefix(f'{graph}.')}", check) for name, tally in tallies.items()]
    return min(verdicts, key=lambda verdict: (verdict.passed, verdict.psnr_db))
