"""One part of a model: its graph's specification, how to build it, and its weights, which are read one by one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pocketdiffusion.export.checkpoints.tensor import LazyTensor, places_of
from pocketdiffusion.export.checkpoints.weight_content import Content, NotFiniteError
from pocketdiffusion.export.tile_size import TileSize
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.vae_tiles import Tiling


@dataclass(frozen=True)
class Inner:
    """A tensor inside of a graph's module: the result of the submodule at `path`, the first of several, or, if
    `argument` is not empty, that argument of its forward."""

    path: str
    argument: str = ""


@dataclass(frozen=True)
class PartOf:
    """A graph that is a part of another, `whole`. `inner` has the inputs and outputs that the whole does not have:
    where its module has them."""

    whole: str
    inner: Mapping[str, Inner]


@dataclass(frozen=True, eq=False)
class Component:
    """`build()` makes the original module without weights, on the current device or fake mode.

    The module's inputs and outputs are the tensors of `spec.inputs` and `spec.outputs` in order; it returns a tuple.
    `weights` maps every name of its state_dict to its tensor. `example(seed)` returns inputs of the real shapes,
    float32, as the sampler would pass them. `sites` counts, computed from the configuration only, the sites that
    tracing must find, by operator: "attention", "group_norm", "layer_norm", "silu", "gelu" (including GEGLU's),
    "quick_gelu". `exponents` belongs to a component that was rescaled (export/float16/weight_rescaling.py): by module,
    the e of a result that is 2^-e times the original module's. `stage` is the stage of the program that calls the
    graph; `halved` is True if it runs for each half of guidance, in one call if the graph's batch is open. `split`
    returns the component as a number of parts that run one after the other, None if it cannot be split; `part_of` is
    set for such a part. Tensors that are not the whole's have the same name in all parts. `tile` returns a decoder for
    tiles of a size (parts/tiles.py), None if the component is no decoder; `tiling` is set for such a decoder.
    """

    spec: GraphSpec
    build: Callable[[], nn.Module]
    weights: Mapping[str, LazyTensor]
    example: Callable[[int], dict[str, Tensor]]
    sites: Mapping[str, int]
    exponents: Mapping[str, int] = field(default_factory=dict)
    stage: str = ""
    halved: bool = False
    split: Callable[["Component", int], list["Component"]] | None = None
    part_of: PartOf | None = None
    tile: Callable[["Component", TileSize], "Component"] | None = None
    tiling: Tiling | None = None


def check_runs(component: Component) -> None:
    """Run the module once on shapes only. Raise UserError if it cannot run, or if its outputs have other shapes than
    the graph's specification."""
    name, expected = component.spec.name, [list(tensor.shape) for tensor in component.spec.outputs]
    try:
        with torch.device("meta"), torch.no_grad():
            outputs = component.build().eval()(*(value.to("meta") for value in component.example(0).values()))
    except Exception as error:  # a wrong configuration can raise any exception
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{name}: the model of config.json does not run ({reason}): correct config.json") from None
    found = [list(output.shape) for output in outputs]
    if found != expected:
        raise UserError(
            f"{name}: the model of config.json has output shapes {found}, expected {expected}: correct config.json"
        )


def check_finite(content: Content, parts: Sequence[Component]) -> None:
    """Raise NotFiniteError, naming file, tensor, index and value, if a weight that a component uses is not finite."""
    used = places_of(tensor for part in parts for tensor in part.weights.values())
    broken = [found for place, found in content.broken.items() if place in used]
    if broken:
        first = broken[0]
        more = f", and {len(broken) - 1} more tensors have such values" if len(broken) > 1 else ""
        raise NotFiniteError(
            f"{first.place.file}: {first.name} is {first.value} at index {list(first.index)}{more}: "
            "a model with such weights cannot draw; download or convert it again"
        )


def load_module(component: Component) -> nn.Module:
    """Return the original module with its weights, float32, in evaluation mode.

    It is built without storage and given its tensors one by one: a tensor that the checkpoint does not have stays
    without storage and cannot be run, instead of having arbitrary memory as values.
    """
    with torch.device("meta"):
        module = component.build()
    module.load_state_dict({name: torch.from_numpy(weight) for name, weight in read_weights(component)}, assign=True)
    return module.eval().requires_grad_(False)


def read_weights(component: Component) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield (name, values) of one tensor at a time: a caller that keeps none needs the memory of one."""
    for name, tensor in component.weights.items():
        yield name, tensor.read()
