"""Rule: the VAE's decoder computes its feature maps of at least half of the picture's height in horizontal stripes.

A feature map is a list of stripes, which are never joined before the picture is. Norm, activation and convolution of
one stripe follow each other before those of the next, and the upsampled rows exist only between upsampling and
convolution, so that a graph's planner can free them; the input of a residual block is freed stripe by stripe, since
its shortcut is computed in the same pass. A 3x3 convolution reads one more row of each neighbour, or zeros at the edges
of the picture. The mean and the variance of GroupNorm are those of all stripes, and so the result is exact.

Fires on diffusers' `Decoder` with GroupNorm and SiLU, also if `centred_group_norm` or `tanh_sigmoid` have replaced
these before, or do so later. Must NOT fire on one with another activation or a spatial norm, nor on encoders and UNets,
whose convolutions are the same modules: their tensors are small.

Source: group normalisation, https://arxiv.org/abs/1803.08494, section 3; the law of total variance. The exact way of
https://github.com/pkuliyi2015/multidiffusion-upscaler-for-automatic1111 (Tiled VAE), whose tiles are squares.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.vae import Decoder
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d_blocks import UpDecoderBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from pocketdiffusion.export.rewrites.centred_group_norm import CentredGroupNorm
from pocketdiffusion.export.rewrites.tanh_sigmoid import TanhActivation, silu_by_tanh, tanh_silu

STRIPES = 8
LEVELS = 2  # up blocks in stripes, from the last one

Rows = list[Tensor]  # stripes of one feature map, from the top: [batch, channels, rows, width]


def convolve_normal(
    stripes: Sequence[Tensor],
    groups: int,
    gain: Tensor,
    offset: Tensor,
    eps: float,
    by_tanh: bool,
    weight: Tensor,
    bias: Tensor,
    short_weight: Tensor | None = None,
    short_bias: Tensor | None = None,
) -> Rows:
    """Return a 3x3 convolution (`weight`, `bias`) of SiLU of the group norm (`groups`, `gain`, `offset`, `eps`) of a
    feature map in stripes, then, with a `short_weight`, the stripes of its 1x1 convolution.

    `by_tanh`: SiLU is `tanh_sigmoid`'s.
    """
    mean, factor, shift = factors(stripes, groups, gain, offset, eps)
    found, shortcut = [], []
    for number, stripe in enumerate(stripes):
        normal = (with_neighbours(stripes, number) - mean) * factor + shift
        active = silu_by_tanh(normal) if by_tanh else F.silu(normal)
        found.append(convolve(active, number, len(stripes), weight, bias))
        if short_weight is not None:
            shortcut.append(F.conv2d(stripe, short_weight, short_bias))
    return found + shortcut


def factors(
    stripes: Sequence[Tensor], groups: int, gain: Tensor, offset: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return m, k and c, each [batch, channels, 1, 1], by which (x - m) * k + c is the group norm of all stripes,
    computed as `centred_group_norm` does, but for a division: coremltools' rsqrt adds an epsilon of its own."""
    batch, channels = stripes[0].shape[:2]
    grouped, full = (-1, groups, channels // groups), (batch, channels, 1, 1)
    rows = [int(stripe.shape[2]) for stripe in stripes]

    def mean_of(parts: list[Tensor]) -> Tensor:
        if len(set(rows)) == 1:
            return torch.cat(parts, 2).mean(2, keepdim=True)
        return torch.cat([part * (n / sum(rows)) for part, n in zip(parts, rows, strict=True)], 2).sum(2, keepdim=True)

    def mean_square(x: Tensor) -> Tensor:
        return (x * x).mean((2, 3), keepdim=True)

    mean = mean_of([stripe.mean((2, 3), keepdim=True) for stripe in stripes])
    squares = mean_of([mean_square(stripe - mean) for stripe in stripes])
    inner = mean.reshape(grouped)
    inner = inner - inner.mean(2, keepdim=True)
    variance = (squares.reshape(grouped) + inner * inner).mean(2, keepdim=True)
    factor = gain.reshape(grouped) / torch.sqrt(variance + eps)
    return mean, factor.reshape(full), (inner * factor + offset.reshape(grouped)).reshape(full)


def convolve(x: Tensor, number: int, count: int, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the 3x3 convolution of stripe `number` of `count`, with its neighbours' rows: zeros are added at the sides
    and at the edges of the picture."""
    edges = int(number == 0), int(number == count - 1)
    return F.conv2d(F.pad(x, (0, 0, *edges)) if any(edges) else x, weight, bias, padding=(0, 1))


def with_neighbours(stripes: Sequence[Tensor], number: int) -> Tensor:
    """Return a stripe with the nearest row of each neighbour that it has."""
    above = [stripes[number - 1][:, :, -1:]] if number else []
    below = [stripe[:, :, :1] for stripe in stripes[number + 1 : number + 2]]
    return torch.cat([*above, stripes[number], *below], 2) if above or below else stripes[number]


striped_conv = torch.library.custom_op("pocketdiffusion::striped_conv", convolve_normal, mutates_args=())


@striped_conv.register_fake
def _(
    stripes: Sequence[Tensor],
    groups: int,
    gain: Tensor,
    offset: Tensor,
    eps: float,
    by_tanh: bool,
    weight: Tensor,
    bias: Tensor,
    short_weight: Tensor | None = None,
    short_bias: Tensor | None = None,
) -> Rows:
    kernels = [weight] if short_weight is None else [weight, short_weight]
    return [s.new_empty(s.shape[0], kernel.shape[0], *s.shape[2:]) for kernel in kernels for s in stripes]


_MARK = torch.ops.pocketdiffusion.striped_conv.default
MARKS = {  # other modules keep ATen's operators, or those of the other rewrites
    "group_norm": (torch.ops.aten.group_norm.default, _MARK),
    "silu": (torch.ops.aten.silu.default, _MARK),
}
BODIES = {_MARK: convolve_normal}
IN_PARTS = True


def apply(module: nn.Module) -> int:
    """Rewrite `module` in place; names of parameters stay. Return the number of modules that are computed in stripes:
    residual blocks, upsamplers, and the end of the decoder as one."""
    found = [(name, child) for name, child in module.named_modules() if type(child) is Decoder and not _reason(child)]
    for name, child in found:
        module.set_submodule(name, TiledDecoder(child))
    return sum(_count(child) for _, child in found)


def kept(module: nn.Module) -> dict[str, int]:
    """Return {reason: count} of the decoders that are not rewritten."""
    reasons = [_reason(child) for child in module.modules() if type(child) is Decoder]
    return {reason: reasons.count(reason) for reason in sorted(filter(None, reasons))}


def _reason(decoder: Decoder) -> str:
    """Return the reason why a decoder is not rewritten, "" if it is."""
    blocks = list(decoder.up_blocks)
    resnets = [resnet for block in blocks for resnet in block.resnets]
    plain = all(type(each) is UpDecoderBlock2D for each in blocks) and all(type(r) is ResnetBlock2D for r in resnets)
    if not plain or not isinstance(decoder.conv_norm_out, nn.GroupNorm | CentredGroupNorm):
        return "has other blocks or norms"
    if not all(isinstance(each.nonlinearity, nn.SiLU) or _is_tanh(each.nonlinearity) for each in resnets):
        return "has another activation than SiLU"
    return ""


def _is_tanh(activation: nn.Module) -> bool:
    return isinstance(activation, TanhActivation) and activation.operator is tanh_silu


def _first(decoder: Any) -> int:
    """Return the index of the first up block in stripes."""
    return max(0, len(decoder.up_blocks) - LEVELS)


def _count(decoder: Decoder) -> int:
    striped = list(decoder.up_blocks)[_first(decoder) :]
    entrance = min(1, _first(decoder))  # the upsampler before
    return sum(len(block.resnets) for block in striped) + len(striped) - 1 + entrance + 1


class TiledDecoder(nn.Module):
    """A replacement of diffusers' `Decoder` that keeps the names of its modules.

    It reads from them what it computes at each call, so that other rewrites may replace its norms and activations.
    """

    def __init__(self, original: Decoder) -> None:
        super().__init__()
        self.conv_in, self.mid_block, self.up_blocks = original.conv_in, original.mid_block, original.up_blocks
        self.conv_norm_out, self.conv_act, self.conv_out = (
            original.conv_norm_out,
            original.conv_act,
            original.conv_out,
        )

    def forward(self, sample: Tensor) -> Tensor:
        """Return the picture [batch, channels, height, width] of latents [batch, channels, h, w]."""
        x = self.mid_block(self.conv_in(sample))
        blocks, first = list(self.up_blocks), _first(self)
        for number, block in enumerate(blocks[:first], 1):
            for resnet in block.resnets:
                x = resnet(x, temb=None)
            if number < first:
                x = block.upsamplers[0](x)
        stripes = split_rows(x)
        if first:
            stripes = upsampled(stripes, blocks[first - 1].upsamplers[0])
        for block in blocks[first:]:
            for resnet in block.resnets:
                stripes = resnet_of(stripes, resnet)
            if block.upsamplers is not None:
                stripes = upsampled(stripes, block.upsamplers[0])
        return torch.cat(_normal_conv(stripes, self.conv_norm_out, self.conv_act, self.conv_out), 2)


def split_rows(x: Tensor, count: int | None = None) -> Rows:
    """Return x [batch, channels, height, width] as at most `count` stripes, STRIPES by default, whose numbers of rows
    differ by at most one."""
    rows = int(x.shape[2])
    parts = min(STRIPES if count is None else count, rows)
    return [x[:, :, first:last] for first, last in pairwise(n * rows // parts for n in range(parts + 1))]


def upsampled(stripes: Rows, upsampler: Upsample2D) -> Rows:
    """Return `upsampler`, which doubles height and width before its convolution, of a feature map in stripes."""
    conv, found = upsampler.conv, []
    for number in range(len(stripes)):
        x = F.interpolate(with_neighbours(stripes, number), scale_factor=2.0, mode="nearest")
        first, last = int(number > 0), int(x.shape[2]) - int(number < len(stripes) - 1)
        x = x[:, :, first:last]  # without the outer one of the two rows that each neighbour's row became
        found.append(convolve(x, number, len(stripes), conv.weight, conv.bias))
    return found


def resnet_of(stripes: Rows, resnet: ResnetBlock2D) -> Rows:
    """Return a residual block of a feature map in stripes."""
    inner = _normal_conv(stripes, resnet.norm1, resnet.nonlinearity, resnet.conv1, resnet.conv_shortcut)
    if resnet.conv_shortcut is not None:
        inner, stripes = inner[: len(stripes)], inner[len(stripes) :]
    outer = _normal_conv(inner, resnet.norm2, resnet.nonlinearity, resnet.conv2)
    scale = resnet.output_scale_factor
    sums = [x + y for x, y in zip(stripes, outer, strict=True)]
    return sums if scale == 1 else [x / scale for x in sums]


def _normal_conv(
    stripes: Rows, norm: nn.Module, activation: nn.Module, conv: nn.Conv2d, shortcut: nn.Conv2d | None = None
) -> Rows:
    groups = norm.groups if isinstance(norm, CentredGroupNorm) else norm.num_groups
    short = () if shortcut is None else (shortcut.weight, shortcut.bias)
    found: Rows = striped_conv(
        stripes, groups, norm.weight, norm.bias, norm.eps, _is_tanh(activation), conv.weight, conv.bias, *short
    )
    return found
