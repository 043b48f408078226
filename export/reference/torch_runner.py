"""The rewritten torch module as a runner: for the rungs of the ladder between the original and the artifacts.

The weights of a large module stay in the files of the checkpoint: each layer's are read for its forward.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pocketdiffusion.export.checkpoints.tensor import LazyTensor
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.reference.streamed_weights import stream_weights
from pocketdiffusion.export.rewrites import apply_rewrites
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.runner import Array, check_inputs

HELD_BYTES = 500_000_000  # of float32 weights that are read once and held; those of a larger module are streamed
Read = Callable[[], NDArray[np.float32]]  # returns one weight


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


def open_rewritten(
    part: Component, rewrites: Sequence[str], change: Callable[[str, Read], Read] = lambda name, read: read
) -> TorchRunner:
    """Return a runner of the torch module in float32 with its weights, after `rewrites` are applied.

    `change` receives the name of each weight and a function that reads it in the shape that the rewritten module has,
    and returns the function to read it with instead.
    """
    with torch.device("meta"):
        module = part.build()
    apply_rewrites(module, rewrites)
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    reads = {name: change(name, partial(_read, part.weights[name], shape)) for name, shape in shapes.items()}
    if 4 * sum(shape.numel() for shape in shapes.values()) <= HELD_BYTES:
        held = {name: torch.from_numpy(read()) for name, read in reads.items()}
        module.load_state_dict(held, assign=True)
    else:
        stream_weights(module, lambda name: torch.from_numpy(reads[name]()))
    return TorchRunner(part.spec, module.eval().requires_grad_(False))


def _read(weight: LazyTensor, shape: torch.Size) -> NDArray[np.float32]:
    return weight.read().reshape(shape)


def open_rounded(part: Component, rewrites: Sequence[str]) -> TorchRunner:
    """Return the runner of `open_rewritten` with its matrices rounded to float16: the error of float16 storage, in any
    format."""
    return open_rewritten(part, rewrites, lambda name, read: partial(_rounded, read))


def _rounded(read: Read) -> NDArray[np.float32]:
    """Return a weight, rounded to float16 if it is a matrix: vectors stay float32 in the artifacts as well."""
    weight = read()
    return weight.astype(np.float16).astype(np.float32) if weight.ndim > 1 else weight
