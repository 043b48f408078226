"""The torch module as a plan leaves it: its matrices restored from what is stored, and what operators take rounded to
the integers that an engine would take. What a recipe costs, whoever writes the file."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pocketdiffusion.export.component import Component
from pocketdiffusion.export.rewritten import TorchRunner, open_rewritten
from pocketdiffusion.quantize.scheme import FLOAT32, Plan
from pocketdiffusion.quantize.spans import BITS, Span, affine, dynamic_affine
from pocketdiffusion.quantize.stored import restore, store


def open_quantized(part: Component, rewrites: Sequence[str], plan: Plan) -> TorchRunner:
    """The component with the weights and activations of `plan`, after the named rewrites.

    A rewrite that calls an operator without its module leaves what it takes alone: give no rewrites where `plan` has
    activations other than "float".
    """
    runner = open_rewritten(part, rewrites)
    quantize(runner.module, plan)
    return runner


@torch.no_grad()
def quantize(module: nn.Module, plan: Plan) -> None:
    """Gives a component's module the weights and activations of `plan`."""
    parameters = dict(module.named_parameters())
    for name, scheme in plan.schemes.items():
        if scheme != FLOAT32:
            parameters[name].copy_(torch.from_numpy(restore(store(parameters[name].numpy(), scheme))))
        if scheme.activation != "float":
            owner = module.get_submodule(name.rpartition(".")[0])
            round_input(owner, plan.inputs.get(name), BITS.get(scheme.activation, 8))


def round_input(owner: nn.Module, span: Span | None, bits: int) -> Any:
    """Makes `owner` take its first argument in integers; `span` None takes the argument's own range each time. Returns
    torch's handle, by which it is undone."""
    return owner.register_forward_pre_hook(partial(_round_first, span=span, bits=bits))


def _round_first(owner: nn.Module, arguments: tuple[Tensor, ...], *, span: Span | None, bits: int) -> Any:
    x, *rest = arguments
    if span is None:
        seen = Span(min(0.0, float(x.min())), max(0.0, float(x.max())))
        return (_by_integers(x, *dynamic_affine(seen, bits), bits), *rest)
    return (rounded(x, span, bits), *rest)


def rounded(x: Tensor, span: Span, bits: int) -> Tensor:
    """`x` by way of the integers of `span`."""
    return _by_integers(x, *affine(span, bits), bits)


def _by_integers(x: Tensor, scale: float, zero: int, bits: int) -> Tensor:
    lowest = -(2 ** (bits - 1))
    codes = torch.clamp(torch.round(x / scale) + zero, lowest, -lowest - 1)
    return (codes - zero) * scale
