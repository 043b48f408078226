"""The rewritten torch module as a runner: the rungs of the ladder between the original and the artifacts."""

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
