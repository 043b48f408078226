"""Rule: LayerNorm becomes ONE operator, `pocketdiffusion::centred_layer_norm`, that centres before it squares.

d = x - mean(x), then d / sqrt(mean(d^2) + eps) * weight + bias, along the last axis. Decomposed by the converter,
LayerNorm is x * k - mean * k, a difference of two nearly equal terms, which loses precision in float16, and it needs
twice as many operators.

Fires on `torch.nn.LayerNorm` over one axis, with weight and bias. Must NOT fire on one over several axes or without
either of them, nor on subclasses.

Source: layer normalisation, https://arxiv.org/abs/1607.06450, section 3.
"""

import torch
from torch import Tensor, nn


def by_row(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Return the layer norm of x [..., channels] along the last axis, in the shape of x. Weight and bias:
    [channels]."""
    centred = x - x.mean(-1, keepdim=True)
    return centred * torch.rsqrt((centred * centred).mean(-1, keepdim=True) + eps) * weight + bias


centred_layer_norm = torch.library.custom_op("pocketdiffusion::centred_layer_norm", by_row, mutates_args=())


@centred_layer_norm.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return torch.empty_like(x)


MARKS = {"layer_norm": torch.ops.pocketdiffusion.centred_layer_norm.default}
BODIES = {torch.ops.pocketdiffusion.centred_layer_norm.default: by_row}
SCALE_RULES = {torch.ops.pocketdiffusion.centred_layer_norm.default: "norm"}


def apply(module: nn.Module) -> int:
    """Rewrite `module` in place; names of parameters stay. Return the number of LayerNorms changed."""
    found = [(name, child) for name, child in module.named_modules() if _is_plain(child)]
    for name, child in found:
        assert isinstance(child, nn.LayerNorm)
        module.set_submodule(name, CentredLayerNorm(child))
    return len(found)


def _is_plain(module: nn.Module) -> bool:
    return (
        type(module) is nn.LayerNorm
        and len(module.normalized_shape) == 1
        and module.weight is not None
        and module.bias is not None
    )


def kept(module: nn.Module) -> dict[str, int]:
    """Return {reason: count} of the LayerNorms that are not rewritten."""
    left = [child for child in module.modules() if isinstance(child, nn.LayerNorm) and not _is_plain(child)]
    plain = [child for child in left if type(child) is nn.LayerNorm]
    several = sum(len(child.normalized_shape) > 1 for child in plain)
    counts = {
        "is a subclass": len(left) - len(plain),
        "is over several axes": several,
        "has no weight and bias": len(plain) - several,
    }
    return {reason: count for reason, count in counts.items() if count}


class CentredLayerNorm(nn.Module):
    """A replacement of `torch.nn.LayerNorm` that keeps the names of weight and bias."""

    def __init__(self, original: nn.LayerNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = original.weight, original.bias, original.eps

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer norm of x [..., channels], in the shape of x."""
        normal: Tensor = centred_layer_norm(x, self.weight, self.bias, self.eps)
        return normal
