"""The rewritten torch module as a runner: the rungs of the ladder between the original and the artifacts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from pocketdiffusion.export.component import Component, load_module
from pocketdiffusion.export.rewrites import apply_rewrites
from pocketdiffusion.runtime.parity import Comparison, ParityReport, floor_db, measure
from pocketdiffusion.runtime.runner import Array, Runner, check_inputs
from pocketdiffusion.runtime.spec import GraphSpec
from pocketdiffusion.runtime.trajectory import Trajectory, cases

SAME_WEIGHTS = "same weights"  # the rung of `judge_conversion`


@dataclass(frozen=True)
class TorchRunner:
    """Runs a component's module in float32."""

    spec: GraphSpec
    module: nn.Module

    @torch.no_grad()
    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        check_inputs(self.spec, inputs)
        outputs = self.module(*(torch.from_numpy(inputs[tensor.name].copy()) for tensor in self.spec.inputs))
        return {t.name: output.numpy() for t, output in zip(self.spec.outputs, outputs, strict=True)}


def open_rewritten(part: Component, rewrites: Sequence[str]) -> TorchRunner:
    """The component with its weights, after the named rewrites."""
    module = load_module(part)
    apply_rewrites(module, rewrites)
    return TorchRunner(part.spec, module)


def open_rounded(part: Component, rewrites: Sequence[str]) -> TorchRunner:
    """As `open_rewritten`, with its matrices rounded to float16: what storage alone costs, whoever writes the file."""
    runner = open_rewritten(part, rewrites)
    for parameter in runner.module.parameters():
        if parameter.ndim > 1:  # vectors stay float32 in the artifacts as well
            parameter.copy_(parameter.half())
    return runner


def judge_conversion(
    artifact: Runner, rounded: Runner, trajectories: Sequence[Trajectory], format: str
) -> list[ParityReport]:
    """An artifact that stores float16 against the module with the same weights, `rounded`, by the floor of float32.

    For a component that its format cannot hold in float32: what the conversion costs, without what rounding costs.
    """
    given = [case for trajectory in trajectories for case in cases(artifact.spec.name, trajectory)]
    pairs = [(case.label, rounded(case.inputs), artifact(case.inputs)) for case in given]
    return [
        measure(
            f"{artifact.spec.name}.{tensor.name}",
            [Comparison(label, wanted[tensor.name], found[tensor.name]) for label, wanted, found in pairs],
            rung=SAME_WEIGHTS,
            floor=floor_db("float32", "float32"),
            format=format,
        )
        for tensor in artifact.spec.outputs
    ]
