"""One part of a model: its graph's contract, how to build it, and its weights, which are read when asked for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pocketdiffusion.export.checkpoints.tensor import LazyTensor, places_of
from pocketdiffusion.export.checkpoints.weight_content import Content, NotFiniteError
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.graph_spec import GraphSpec


@dataclass(frozen=True, eq=False)
class Component:
    """`build()` makes the untouched original module without weights, on whatever device or fake mode is current.

    The module takes the tensors of `spec.inputs` in order and returns those of `spec.outputs` as a tuple. `weights`
    maps every name of its state_dict to its tensor. `example(seed)` gives inputs of the real shapes, float32,
    as the sampler would feed them. `sites` counts, from the configuration alone, what tracing must find, by
    operator: "attention", "group_norm", "layer_norm", "silu", "gelu" (that of GEGLU too), "quick_gelu".
    `exponents` is of a component that was rescaled (export/float16/weight_rescaling.py): by module, the e of a result
    that is 2^-e times the untouched module's. `stage` is that of the program that calls the graph; `halved` says that
    it does so for each half of guidance, in one call where the graph's batch is open.
    """

    spec: GraphSpec
    build: Callable[[], nn.Module]
    weights: Mapping[str, LazyTensor]
    example: Callable[[int], dict[str, Tensor]]
    sites: Mapping[str, int]
    exponents: Mapping[str, int] = field(default_factory=dict)
    stage: str = ""
    halved: bool = False


def check_runs(component: Component) -> None:
    """Run the module once on shapes alone. Raises UserError where its configuration makes one that cannot be run, or
    that gives other shapes than its graph promises."""
    name, wanted = component.spec.name, [list(tensor.shape) for tensor in component.spec.outputs]
    try:
        with torch.device("meta"), torch.no_grad():
            outputs = component.build().eval()(*(value.to("meta") for value in component.example(0).values()))
    except Exception as error:  # a wrong configuration fails in whatever way the line that meets it fails
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{name}: its config.json makes a model that does not run ({reason})") from None
    found = [list(output.shape) for output in outputs]
    if found != wanted:
        raise UserError(f"{name}: its config.json makes a model that gives {found} and not {wanted}")


def check_finite(content: Content, parts: Sequence[Component]) -> None:
    """Raise NotFiniteError, naming file, tensor, index and value, where a weight that a component uses is not
    finite."""
    used = places_of(tensor for part in parts for tensor in part.weights.values())
    broken = [found for place, found in content.broken.items() if place in used]
    if broken:
        first = broken[0]
        more = f", and {len(broken) - 1} more tensors have such values" if len(broken) > 1 else ""
        raise NotFiniteError(
            f"{first.place.file}: {first.name} is {first.value} at index {list(first.index)}{more}: "
            "weights that are not finite draw nothing; take a sound copy"
        )


def load_module(component: Component) -> nn.Module:
    """The original module with its weights, float32, in evaluation mode.

    Built without storage and given its tensors one by one: what the checkpoint lacks stays without storage and cannot
    be run, rather than holding whatever lay in memory.
    """
    with torch.device("meta"):
        module = component.build()
    module.load_state_dict({name: torch.from_numpy(weight) for name, weight in read_weights(component)}, assign=True)
    return module.eval().requires_grad_(False)


def read_weights(component: Component) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """One tensor at a time, so that a caller that keeps none needs the memory of one."""
    for name, tensor in component.weights.items():
        yield name, tensor.read()
