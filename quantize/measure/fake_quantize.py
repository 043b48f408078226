"""Fake quantization: the matrices and activations of a torch module are rounded as a plan says, with float32
arithmetic.

It shows the error of a recipe before an artifact in any format exists.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pocketdiffusion.quantize.qparams import BITS, ValueRange, affine
from pocketdiffusion.quantize.quantized_tensor import restore, store
from pocketdiffusion.quantize.scheme import FLOAT32, Plan


@torch.no_grad()
def fake_quantize(module: nn.Module, plan: Plan) -> None:
    """Round the weights of `module` as `plan` says, in place, and its activations at each call."""
    parameters = dict(module.named_parameters())
    for name, scheme in plan.schemes.items():
        if scheme != FLOAT32:
            parameters[name].copy_(torch.from_numpy(restore(store(parameters[name].numpy(), scheme))))
    round_activations(module, plan)


def round_activations(module: nn.Module, plan: Plan, *, litert: bool = False) -> None:
    """Round the activations of `module` at each call as `plan` says.

    With `litert` the rounding is LiteRT's instead of onnxruntime's: an int8 kernel also returns int8, and each row of a
    matrix product has its own dynamic range.
    """
    for name, scheme in plan.schemes.items():
        if scheme.activation != "float":
            owner = module.get_submodule(name.rpartition(".")[0])
            bits = BITS.get(scheme.activation, 8)
            round_input(owner, plan.inputs.get(name), bits, litert=litert)
            if litert and name in plan.outputs:
                round_output(owner, plan.outputs[name], bits)


def round_input(
    owner: nn.Module, value_range: ValueRange | None, bits: int, *, litert: bool = False
) -> RemovableHandle:
    """Round the first argument of `owner` to integers of `bits` at each call, and return the handle that removes the
    hook.

    If `value_range` is None, the range is computed from the argument at each call, as onnxruntime or XNNPACK (`litert`)
    computes it.
    """
    if value_range is not None:
        change = partial(rounded, value_range=value_range, bits=bits)
    elif litert:
        change = partial(_rounded_by_xnnpack, axis=_row_axis(owner), bits=bits)
    else:
        change = partial(_rounded_by_onnx, bits=bits)
    return owner.register_forward_pre_hook(lambda _, arguments: (change(arguments[0]), *arguments[1:]))


def round_output(owner: nn.Module, value_range: ValueRange, bits: int) -> None:
    """Round the result of `owner` to integers of `bits`, as LiteRT's int8 kernels do."""
    owner.register_forward_hook(lambda _, arguments, result: rounded(result, value_range, bits))


def rounded(x: Tensor, value_range: ValueRange, bits: int) -> Tensor:
    """Return `x` (float32, any shape) quantized to integers of `bits` for `value_range` and dequantized."""
    scale, zero_point = affine(value_range, bits)
    quantized = _clamped(torch.round(x / scale) + zero_point, bits)
    return (quantized - zero_point) * scale


def _rounded_by_onnx(x: Tensor, bits: int) -> Tensor:
    """Quantize and dequantize `x` as ONNX's DynamicQuantizeLinear does, but with signed integers."""
    low, high = x.min().clamp(max=0.0), x.max().clamp(min=0.0)
    scale = (high - low) / (2**bits - 1)
    scale = torch.where(scale > 0, scale, 1.0)
    zero_point = _clamped(torch.round(-low / scale) - 2 ** (bits - 1), bits)
    return (_clamped(torch.round(x / scale) + zero_point, bits) - zero_point) * scale


def _rounded_by_xnnpack(x: Tensor, axis: int | None, bits: int) -> Tensor:
    """Quantize and dequantize `x` as XNNPACK does for LiteRT: a matrix product has a range for each row along
    `axis`, and values are multiplied by the inverse of the scale (XNNPACK,
    xnn_f32_qd8_asymmetric_quantization_params)."""
    low, high = (x.min(), x.max()) if axis is None else (x.amin(axis, keepdim=True), x.amax(axis, keepdim=True))
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    inverse = torch.where(high > low, (2**bits - 1) / (high - low), 1.0)
    zero_point = _clamped(torch.round(-low * inverse - 2 ** (bits - 1)), bits)
    return (_clamped(torch.round(x * inverse) + zero_point, bits) - zero_point) / inverse


def _row_axis(owner: nn.Module) -> int | None:
    """Return the axis of a matrix product's rows; None for a convolution, unless its kernel is 1x1, which is a
    matrix product."""
    if isinstance(owner, nn.Conv2d):
        return 1 if set(owner.kernel_size) == {1} else None
    return -1


def _clamped(quantized: Tensor, bits: int) -> Tensor:
    return torch.clamp(quantized, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
