"""The record of where diffusers' pipeline calls a graph, and of the conversion between the call's tensors and the
graph's."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class InnerTensor:
    """A tensor inside of a call: `read` returns it from the arguments, by name, and the result of `module`."""

    module: nn.Module
    read: Callable[[Mapping[str, Any], Any], Tensor]


@dataclass(frozen=True)
class GraphCall:
    """A call of the graph begins when the module `first` is called, and ends when the module `last` returns.

    `inputs` converts the arguments of `first.forward`, by name, to the graph's inputs; `outputs` converts the result of
    `last` to its outputs. Both have the batch of the pipeline: axis 0 has the samples, one or both halves of guidance;
    a tensor of rank 0 belongs to all of them. `parts`: if the graph is split, the names of the inputs and the outputs
    of each part, which is recorded as a call of its own; `inner` has the tensors that are neither inputs nor outputs of
    the whole.
    """

    first: nn.Module
    last: nn.Module
    inputs: Callable[[Mapping[str, Any]], Tensors]
    outputs: Callable[[Any], Tensors]
    inner: Mapping[str, InnerTensor] = field(default_factory=dict)
    parts: Mapping[str, tuple[Sequence[str], Sequence[str]]] = field(default_factory=dict)
