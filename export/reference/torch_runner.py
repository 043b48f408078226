"""The rewritten torch module as a runner: for the rungs of the ladder between the original and the artifacts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from pocketdiffusion.export.component import Component, load_module
from pocketdiffusion.export.rewrites import apply_rewrites
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.runner import Array, check_inputs


@dataclass(frozen=True)
class TorchRunner:
    """A runner of a component's module in float32."""

    spec: GraphSpec
    module: nn.Module

    @torch.no_grad()
    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        check_inputs(self.spec, inputs)
        outputs = self.module(*(torch.from_numpy(inputs[tensor.name].copy()) for tensor in self.spec.inputs))
        return {t.name: output.numpy() for t, output in zip(self.spec.outputs, outputs, strict=True)}


def open_rewritten(part: Component, rewrites: Sequence[str]) -> TorchRunner:
    """Return a runner of the torch module in float32 with its weights, after `rewrites` are applied."""
    module = load_module(part)
    apply_rewrites(module, rewrites)
    return TorchRunner(part.spec, module)


def open_rounded(part: Component, rewrites: Sequence[str]) -> TorchRunner:
    """Return the runner of `open_rewritten` with its matrices rounded to float16: the error of float16 storage, in any
    format."""
    runner = open_rewritten(part, rewrites)
    for parameter in runner.module.parameters():
        if parameter.ndim > 1:  # vectors stay float32 in the artifacts as well
            parameter.copy_(parameter.half())
    return runner
