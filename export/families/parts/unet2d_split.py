"""The UNet as several graphs of nearly equal weight, which run one after the other.

A part is a run of the UNet's steps. What it computes and a later part reads crosses the cut as a tensor of float32: the
hidden state, skip connections, the time embedding. Each weight belongs to one step, so that it is stored once.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from pocketdiffusion.export.component import Component, Inner, PartOf, check_runs
from pocketdiffusion.export.families.parts.cuts import choose_cuts
from pocketdiffusion.export.families.parts.unet2d_steps import (
    RESNET,
    RESULT,
    TIME,
    Step,
    crossing,
    made,
    run_step,
    run_steps,
    sites,
    unet_steps,
    used,
)
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec

_DOCS = {"skip": "a skip connection", "hidden": "the hidden state", "time": "the embedding of the timestep"}
Shapes = Mapping[str, tuple[int, ...]]


class UNetPart(nn.Module):
    """The steps `steps` of the UNet that `build()` has as its `unet`: tensors of the names `inputs` to tensors of the
    names `outputs`, in order, float32. The UNet's other modules are removed; weights keep their names."""

    def __init__(
        self, build: Callable[[], nn.Module], steps: Sequence[Step], inputs: Sequence[str], outputs: Sequence[str]
    ) -> None:
        super().__init__()
        unet: Any = build().unet
        self.unet = unet
        _remove_others(unet, "", {path for step in steps for path in step.paths})
        self.steps, self.inputs, self.outputs = tuple(steps), tuple(inputs), tuple(outputs)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        values = dict(zip(self.inputs, tensors, strict=True))
        for number, step in enumerate(self.steps, 1):
            values |= zip(step.makes, run_step(self.unet, step, values), strict=True)
            needed = used(self.steps[number:]).union(self.outputs)
            values = {name: value for name, value in values.items() if name in needed}
        return tuple(values[name] for name in self.outputs)


def split(whole: Component, count: int) -> list[Component]:
    """Return the UNet `whole`, a `Denoiser` or `TextTimeDenoiser`, as `count` graphs NAME_1 .. NAME_count.
    `choose_cuts` decides where it is cut.

    Raise UserError if the UNet has fewer steps, or does not run.
    """
    check_runs(whole)
    with torch.device("meta"), torch.no_grad():
        unet: Any = whole.build().eval().unet
        example = {name: value.to("meta") for name, value in whole.example(0).items()}
        steps, values = run_steps(unet, unet_steps(unet, whole.spec), example)
    if count > len(steps):
        raise UserError(
            f"{whole.spec.name} cannot be split into {count} parts: it has {len(steps)} blocks, so give {len(steps)} "
            "or less"
        )
    shapes = {name: tuple(value.shape) for name, value in values.items()}
    weights = [sum(prod(whole.weights[name].shape) for name in _weight_names(whole, step)) for step in steps]
    across = [sum(prod(shapes[name]) for name in crossing(steps, place)) for place in range(len(steps) + 1)]
    places = [0, *choose_cuts(weights, across, count), len(steps)]
    return [
        _part(whole, unet, steps, (first, last), number, shapes)
        for number, (first, last) in enumerate(pairwise(places), 1)
    ]


def _part(
    whole: Component, unet: Any, steps: Sequence[Step], places: tuple[int, int], number: int, shapes: Shapes
) -> Component:
    """Return the part of the steps between two `places`."""
    first, last = places
    own, given = steps[first:last], [tensor.name for tensor in whole.spec.inputs]
    inside = made(own)
    inputs = [name for name in [*given, *made(steps[:first])] if name in used(own)]
    outputs = [name for name in inside if name in used(steps[last:]) or name == RESULT]
    spec = _spec(whole.spec, f"{whole.spec.name}_{number}", inputs, outputs, shapes)
    counts = [sites(unet, step) for step in own]
    crosses = [name for name in [*inputs, *outputs] if name not in given and name != RESULT]
    return Component(
        spec,
        partial(UNetPart, whole.build, own, inputs, outputs),
        {name: whole.weights[name] for step in own for name in _weight_names(whole, step)},
        partial(_example, whole, spec),
        {kind: total for kind in whole.sites if (total := sum(count[kind] for count in counts))},
        part_of=PartOf(whole.spec.name, {name: _inner(steps, name) for name in crosses}),
    )


def _weight_names(whole: Component, step: Step) -> list[str]:
    """Return the names of the weights of a step's modules, in the order of the whole."""
    begins = tuple(f"unet.{path}." for path in step.paths)
    return [name for name in whole.weights if name.startswith(begins)]


def _spec(whole: GraphSpec, name: str, inputs: Sequence[str], outputs: Sequence[str], shapes: Shapes) -> GraphSpec:
    own = {tensor.name: tensor for tensor in (*whole.inputs, *whole.outputs)}

    def tensor(each: str) -> TensorSpec:
        return own.get(each) or TensorSpec(each, shapes[each], "float32", _DOCS[each.partition("_")[0]])

    return GraphSpec(name, tuple(map(tensor, inputs)), tuple(map(tensor, outputs)))


def _example(whole: Component, spec: GraphSpec, seed: int) -> dict[str, Tensor]:
    """Return the whole's example for the tensors that it has, and normal noise for those that cross a cut."""
    own, generator = whole.example(seed), torch.Generator().manual_seed(seed)
    return {
        t.name: own[t.name] if t.name in own else torch.randn([int(n) for n in t.shape], generator=generator)
        for t in spec.inputs
    }


def _inner(steps: Sequence[Step], name: str) -> Inner:
    """Return where diffusers' UNet has a tensor: the result of the step's module, or the time embedding that the first
    residual block is given."""
    if name == TIME:
        return Inner(next(f"unet.{step.paths[0]}" for step in steps if step.kind == RESNET), "temb")
    (maker,) = [step for step in steps if name in step.makes]
    return Inner(f"unet.{maker.paths[0]}")


def _remove_others(module: nn.Module, prefix: str, kept: Collection[str]) -> None:
    """Remove the modules below `module` that are neither at the paths `kept` nor above nor below them."""
    for name, child in list(module._modules.items()):
        path = f"{prefix}{name}"
        if path in kept:
            continue
        if child is not None and any(each.startswith(f"{path}.") for each in kept):
            _remove_others(child, f"{path}.", kept)
        else:
            del module._modules[name]
