"""The record of where diffusers' pipeline calls a graph, and of the conversion between the call's tensors and the
graph's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class GraphCall:
    """A call of the graph begins when the module `first` is called, and ends when the module `last` returns.

    `inputs` converts the arguments of `first.forward`, by name, to the graph's inputs; `outputs` converts the result of
    `last` to its outputs. Both have the batch of the pipeline: axis 0 has the samples, one or both halves of guidance;
    a tensor of rank 0 belongs to all of them.
    """

    first: nn.Module
    last: nn.Module
    inputs: Callable[[Mapping[str, Any]], Tensors]
    outputs: Callable[[Any], Tensors]
