"""Where a pipeline of diffusers calls what becomes a graph, and how the call's tensors become the graph's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class GraphCall:
    """A call of the module `takes` begins a call of the graph, and the end of the module `gives` ends it.

    `inputs` makes the graph's inputs of the arguments of `takes.forward` by name, `outputs` its outputs of what `gives`
    returned. Both have the batch of the pipeline: axis 0 has the samples, one or both halves of guidance; a tensor of
    rank 0 belongs to all of them.
    """

    takes: nn.Module
    gives: nn.Module
    inputs: Callable[[Mapping[str, Any]], Tensors]
    outputs: Callable[[Any], Tensors]
