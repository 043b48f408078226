"""Rule: GroupNorm becomes ONE operator, `pocketdiffusion::centred_group_norm`, that centres before it squares.

Statistics of channels first: with m the mean of a channel, d = x - m and e = m - (mean of m over the group), the
variance of the group is the mean of (mean of d^2) + e^2, and the result is d * k + (e * k + bias) with k = weight /
sqrt(variance + eps). The squared values are small even if the mean is large, whereas E[x^2] - E[x]^2, and x * k - mean
* k, lose precision in float16. No tensor of full size changes its shape, so that a backend of another layout (LiteRT is
channels-last) inserts no Transpose; nothing is broadcast by an operator of its own.

Fires on `torch.nn.GroupNorm` with weight and bias. Must NOT fire on one without (an operator of other arguments), nor
on subclasses and on diffusers' SpatialNorm or AdaGroupNorm, which compute something else.

Source: group normalisation, https://arxiv.org/abs/1803.08494, section 3; the law of total variance.
"""

import torch
from torch import Tensor, nn


def by_channel(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Return the group norm of x [batch, channels, ...] of rank 3 or 4, in the shape of x. Weight and bias:
    [channels]."""
    batch, channels, *space = x.shape
    axes = tuple(range(2, x.ndim))
    grouped = (-1, groups, channels // groups)
    full = (batch, channels, *(1 for _ in space))
    mean = x.mean(axes, keepdim=True)
    centred = x - mean
    offset = mean.reshape(grouped)
    offset = offset - offset.mean(2, keepdim=True)
    variance = (centred * centred).mean(axes, keepdim=True).reshape(grouped) + offset * offset
    factor = torch.rsqrt(variance.mean(2, keepdim=True) + eps) * weight.reshape(grouped)
    return centred * factor.reshape(full) + (offset * factor + bias.reshape(grouped)).reshape(full)


centred_group_norm = torch.library.custom_op("pocketdiffusion::centred_group_norm", by_channel, mutates_args=())


@centred_group_norm.register_fake
def _(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return torch.empty_like(x)


MARKS = {"group_norm": torch.ops.pocketdiffusion.centred_group_norm.default}
BODIES = {torch.ops.pocketdiffusion.centred_group_norm.default: by_channel}
SCALE_RULES = {torch.ops.pocketdiffusion.centred_group_norm.default: "norm"}


def apply(module: nn.Module) -> int:
    """Rewrite `module` in place; names of parameters stay. Return the number of GroupNorms changed."""
    found = [(name, child) for name, child in module.named_modules() if type(child) is nn.GroupNorm and child.affine]
    for name, child in found:
        module.set_submodule(name, CentredGroupNorm(child))
    return len(found)


def kept(module: nn.Module) -> dict[str, int]:
    """Return {reason: count} of the GroupNorms that are not rewritten."""
    left = [child for child in module.modules() if isinstance(child, nn.GroupNorm)]
    bare = sum(type(child) is nn.GroupNorm and not child.affine for child in left)
    counts = {"has no weight and bias": bare, "is a subclass": sum(type(child) is not nn.GroupNorm for child in left)}
    return {reason: count for reason, count in counts.items() if count}


class CentredGroupNorm(nn.Module):
    """A replacement of `torch.nn.GroupNorm` that keeps the names of weight and bias."""

    def __init__(self, original: nn.GroupNorm) -> None:
        super().__init__()
        self.weight, self.bias = original.weight, original.bias
        self.groups, self.eps = original.num_groups, original.eps

    def forward(self, x: Tensor) -> Tensor:
        """Return the group norm of x [batch, channels, ...], in the shape of x."""
        normal: Tensor = centred_group_norm(x, self.groups, self.weight, self.bias, self.eps)
        return normal
