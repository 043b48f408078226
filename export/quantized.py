"""The torch module as a plan leaves it: its matrices restored from what is stored, and what operators take rounded to
the integers that an engine would take. What a recipe costs, whoever writes the file."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pocketdiffusion.export.component import Component
from pocketdiffusion.export.reference.torch_runner import TorchRunner, open_rewritten
from pocketdiffusion.quantize.qparams import BITS, Span, affine
from pocketdiffusion.quantize.quantized_tensor import restore, store
from pocketdiffusion.quantize.scheme import FLOAT32, Plan


def open_quantized(part: Component, rewrites: Sequence[str], plan: Plan, *, litert: bool = False) -> TorchRunner:
    """The component with the weights and activations of `plan`, after the named rewrites. `litert` is for an artifact
    that LiteRT runs: each kernel of int8 gives int8 as well, and each row has a dynamic range of its own.

    A rewrite that calls an operator without its module leaves what it takes alone: give no rewrites where `plan` has
    activations other than "float".
    """
    runner = open_rewritten(part, rewrites)
    quantize(runner.module, plan, litert=litert)
    return runner


@torch.no_grad()
def quantize(module: nn.Module, plan: Plan, *, litert: bool = False) -> None:
    """Gives a component's module the weights and activations of `plan`."""
    parameters = dict(module.named_parameters())
    for name, scheme in plan.schemes.items():
        if scheme != FLOAT32:
            parameters[name].copy_(torch.from_numpy(restore(store(parameters[name].numpy(), scheme))))
        if scheme.activation != "float":
            owner = module.get_submodule(name.rpartition(".")[0])
            bits = BITS.get(scheme.activation, 8)
            round_input(owner, plan.inputs.get(name), bits, litert=litert)
            if litert and name in plan.outputs:
                round_output(owner, plan.outputs[name], bits)


def round_input(owner: nn.Module, span: Span | None, bits: int, *, litert: bool = False) -> Any:
    """Makes `owner` take its first argument in integers; `span` None takes the argument's own range each time, as ONNX
    or as XNNPACK finds it. Returns torch's handle, by which it is undone."""
    if span is not None:
        change = partial(rounded, span=span, bits=bits)
    elif litert:
        change = partial(_rounded_by_xnnpack, axis=_row_axis(owner), bits=bits)
    else:
        change = partial(_rounded_by_onnx, bits=bits)
    return owner.register_forward_pre_hook(lambda _, arguments: (change(arguments[0]), *arguments[1:]))


def round_output(owner: nn.Module, span: Span, bits: int) -> None:
    """Makes what `owner` gives integers as well, as LiteRT's kernels of int8 do."""
    owner.register_forward_hook(lambda _, arguments, result: rounded(result, span, bits))


def rounded(x: Tensor, span: Span, bits: int) -> Tensor:
    """`x` by way of the integers of `span`."""
    scale, zero = affine(span, bits)
    codes = _clamped(torch.round(x / scale) + zero, bits)
    return (codes - zero) * scale


def _rounded_by_onnx(x: Tensor, bits: int) -> Tensor:
    """By way of the integers that the operator DynamicQuantizeLinear of ONNX finds, with signed codes."""
    low, high = x.min().clamp(max=0.0), x.max().clamp(min=0.0)
    scale = (high - low) / (2**bits - 1)
    scale = torch.where(scale > 0, scale, 1.0)
    zero = _clamped(torch.round(-low / scale) - 2 ** (bits - 1), bits)
    return (_clamped(torch.round(x / scale) + zero, bits) - zero) * scale


def _rounded_by_xnnpack(x: Tensor, axis: int | None, bits: int) -> Tensor:
    """By way of the integers that XNNPACK finds for LiteRT: a product has a range for each row, along `axis`, and
    values are multiplied by the inverse of the scale (XNNPACK, xnn_f32_qd8_asymmetric_quantization_params)."""
    low, high = (x.min(), x.max()) if axis is None else (x.amin(axis, keepdim=True), x.amax(axis, keepdim=True))
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    inverse = torch.where(high > low, (2**bits - 1) / (high - low), 1.0)
    zero = _clamped(torch.round(-low * inverse - 2 ** (bits - 1)), bits)
    return (_clamped(torch.round(x * inverse) + zero, bits) - zero) / inverse


def _row_axis(owner: nn.Module) -> int | None:
    """Along which a product has its rows. A convolution of single pixels is one, another is none."""
    if isinstance(owner, nn.Conv2d):
        return 1 if set(owner.kernel_size) == {1} else None
    return -1


def _clamped(codes: Tensor, bits: int) -> Tensor:
    return torch.clamp(codes, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
