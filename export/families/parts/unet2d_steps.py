"""The UNet as a sequence of steps: its beginning, each residual block, each transformer, each change of size, its end.

Source: UNet2DConditionModel.forward and the forwards of its blocks in diffusers 0.42, for the configurations that
`unet2d` supports.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import Timesteps
from torch import Tensor, nn

from pocketdiffusion.runtime.graph_spec import GraphSpec

BEGIN, RESNET, ATTENTION, DOWN, UP, END = "begin", "resnet", "attention", "down", "up", "end"  # kinds of steps
TIME, STATES, RESULT = "time_embedding", "encoder_hidden_states", "out_sample"  # names of tensors
_CHILDREN = {
    BEGIN: ("conv_in", "time_proj", "time_embedding", "time_embed_act", "add_time_proj", "add_embedding"),
    END: ("conv_norm_out", "conv_act", "conv_out"),
}  # the UNet's own modules that a step runs


@dataclass(frozen=True)
class Step:
    """Modules of the UNet between which it is never cut, at `paths`. `uses` and `makes` are the names of its tensors. A
    step of the kind UP returns tensors of `size`, (height, width), which is that of the skip connection `like`; of
    twice the size if they are None."""

    kind: str
    paths: tuple[str, ...]
    uses: tuple[str, ...]
    makes: tuple[str, ...]
    like: str | None = None
    size: tuple[int, ...] | None = None


def unet_steps(unet: Any, spec: GraphSpec) -> Iterator[Step]:
    """Yield the steps of diffusers' UNet in the order of its forward, for the inputs of `spec`.

    A tensor is called skip_N if the UNet joins it again on its way up, else hidden_N. The time embedding is one tensor
    of all residual blocks.
    """
    given = tuple(tensor.name for tensor in spec.inputs if tensor.name != STATES)
    yield Step(BEGIN, _CHILDREN[BEGIN], given, ("skip_0", TIME))
    hidden, skips = "skip_0", ["skip_0"]
    fits = all(int(size) % 2**unet.num_upsamplers == 0 for size in spec.inputs[0].shape[2:])
    for number, (kind, path, keeps, joins) in enumerate(_layers(unet), 1):
        joined = (skips.pop(),) if joins else ()
        others = {RESNET: (TIME,), ATTENTION: (STATES,)}.get(kind, ())
        like = skips[-1] if kind == UP and not fits else None
        made = f"{'skip' if keeps else 'hidden'}_{number}"
        yield Step(kind, (path,), (hidden, *joined, *others), (made,), like)
        hidden = made
        skips += [made] if keeps else []
    yield Step(END, _CHILDREN[END], (hidden,), (RESULT,))


def _layers(unet: Any) -> Iterator[tuple[str, str, bool, bool]]:
    """Yield (kind, path, whether the result is a skip connection, whether one is joined before) of the blocks' layers
    in their order."""
    for number, block in enumerate(unet.down_blocks):
        yield from _pairs(f"down_blocks.{number}", block, keeps=True)
        for place in range(len(block.downsamplers or ())):
            yield DOWN, f"down_blocks.{number}.downsamplers.{place}", True, False
    if unet.mid_block is not None:
        yield from _pairs("mid_block", unet.mid_block)
    for number, block in enumerate(unet.up_blocks):
        yield from _pairs(f"up_blocks.{number}", block, joins=True)
        for place in range(len(block.upsamplers or ())):
            yield UP, f"up_blocks.{number}.upsamplers.{place}", False, False


def _pairs(path: str, block: Any, *, keeps: bool = False, joins: bool = False) -> Iterator[tuple[str, str, bool, bool]]:
    """Yield the residual blocks of a block, each with the transformer behind it if there is one."""
    attentions = len(getattr(block, "attentions", ()))
    for number in range(len(block.resnets)):
        attends = number < attentions
        yield RESNET, f"{path}.resnets.{number}", keeps and not attends, joins
        if attends:
            yield ATTENTION, f"{path}.attentions.{number}", keeps, False


def run_step(unet: Any, step: Step, values: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """Return the tensors that a step makes of `values`, which has those that it uses."""
    if step.kind == BEGIN:
        return _begin(unet, values)
    hidden, *others = (values[name] for name in step.uses)
    if step.kind == END:
        if unet.conv_norm_out:
            hidden = unet.conv_act(unet.conv_norm_out(hidden))
        return (unet.conv_out(hidden),)
    module = unet.get_submodule(step.paths[0])
    if step.kind == RESNET:
        *joined, time = others
        return (module(torch.cat([hidden, *joined], dim=1) if joined else hidden, time),)
    if step.kind == ATTENTION:
        return (module(hidden, encoder_hidden_states=others[0], return_dict=False)[0],)
    return (module(hidden, step.size) if step.kind == UP else module(hidden),)


def _begin(unet: Any, values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the first hidden state and the time embedding, to which that of the other conditions is added."""
    sample = values["sample"]
    time = unet.time_embedding(unet.get_time_embed(sample=sample, timestep=values["timestep"]), None)
    added = unet.get_aug_embed(emb=time, encoder_hidden_states=None, added_cond_kwargs=values)
    time = time if added is None else time + added
    time = time if unet.time_embed_act is None else unet.time_embed_act(time)
    return unet.conv_in(2 * sample - 1.0 if unet.config.center_input_sample else sample), time


def run_steps(unet: Any, steps: Iterable[Step], given: Mapping[str, Tensor]) -> tuple[list[Step], dict[str, Tensor]]:
    """Run all steps on the inputs `given`, and return the steps with the sizes that they have then, and all tensors by
    name."""
    values, found = dict(given), []
    for step in steps:
        size = None if step.like is None else tuple(values[step.like].shape[2:])
        found.append(replace(step, size=size))
        values |= zip(step.makes, run_step(unet, found[-1], values), strict=True)
    return found, values


def used(steps: Iterable[Step]) -> set[str]:
    """Return the names of the tensors that steps read."""
    return {name for step in steps for name in step.uses}


def made(steps: Iterable[Step]) -> list[str]:
    """Return the names of the tensors that steps make, in order."""
    return [name for step in steps for name in step.makes]


def crossing(steps: Sequence[Step], place: int) -> list[str]:
    """Return the names of the tensors that the first `place` steps make and others read."""
    later = used(steps[place:])
    return [name for name in made(steps[:place]) if name in later]


def sites(unet: Any, step: Step) -> dict[str, int]:
    """Return {operator: sites} of a step, as `unet2d.sites` counts them for all, from its modules."""
    children = dict(unet.named_modules())
    own = [each for path in step.paths for each in children.get(path, nn.Module()).modules()]
    found = {
        "attention": _count(own, Attention),
        "gelu": _count(own, GEGLU),
        "layer_norm": _count(own, nn.LayerNorm),
        "group_norm": _count(own, nn.GroupNorm),
        "sinusoidal_embedding": _count(own, Timesteps),
    }
    if step.kind == RESNET:  # one module, called three times: on the hidden state twice, on the time embedding
        (block,) = (children[path] for path in step.paths)
        return found | {"silu": isinstance(block.nonlinearity, nn.SiLU) * (3 - block.skip_time_act)}
    return found | {"silu": _count(own, nn.SiLU)}


def _count(modules: Iterable[nn.Module], kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in modules)
