"""Rule: a sigmoid becomes a tanh: x * sigmoid(a x) = x/2 * (1 + tanh(a x / 2)), for SiLU (a = 1) and QuickGELU (1.702).

Exact, and no faster on a CPU: two operators become four. It is for compute units that have tanh and no sigmoid, or a
slow one. In float16 1 + tanh cancels where x is far below 0, and the negative tail is lost: at x = -8 SiLU is off by 27
%. benchmarks/RESULTS.md, section Sigmoid, has the error on real activations, and why no shipped target uses it.

Fires on `torch.nn.SiLU`, which diffusers' UNet and VAE use, each at one or more sites (the SiLU of a residual block
acts three times), on transformers' `QuickGELUActivation`, and on the module that `quick_gelu` replaces it with. Must
NOT fire on GELU, whose sigmoid is an approximation, on a sigmoid that is not an activation (a gate), nor on FP32SiLU,
an island in float32.

Source: sigmoid(x) = (1 + tanh(x / 2)) / 2, https://dlmf.nist.gov/4.28 with 4.37; SiLU and QuickGELU as in section 2 of
https://arxiv.org/abs/1606.08415.
"""

from collections import Counter
from collections.abc import Callable

import torch
from diffusers.models.activations import FP32SiLU
from torch import Tensor, nn
from transformers.activations import QuickGELUActivation

from pocketdiffusion.export.rewrites.quick_gelu import QuickGELU


def silu_by_tanh(x: Tensor) -> Tensor:
    """Return x * sigmoid(x), computed with tanh, in the shape of x."""
    half = 0.5 * x
    return half * (torch.tanh(half) + 1.0)


def quick_gelu_by_tanh(x: Tensor) -> Tensor:
    """Return x * sigmoid(1.702 x), computed with tanh, in the shape of x."""
    return 0.5 * x * (torch.tanh(0.851 * x) + 1.0)


tanh_silu = torch.library.custom_op("pocketdiffusion::tanh_silu", silu_by_tanh, mutates_args=())
tanh_quick_gelu = torch.library.custom_op("pocketdiffusion::tanh_quick_gelu", quick_gelu_by_tanh, mutates_args=())


@tanh_silu.register_fake
@tanh_quick_gelu.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


MARKS = {
    "silu": torch.ops.pocketdiffusion.tanh_silu.default,
    "quick_gelu": torch.ops.pocketdiffusion.tanh_quick_gelu.default,
}
BODIES = {MARKS["silu"]: silu_by_tanh, MARKS["quick_gelu"]: quick_gelu_by_tanh}
_OPERATORS: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {
    nn.SiLU: tanh_silu,
    QuickGELUActivation: tanh_quick_gelu,
    QuickGELU: tanh_quick_gelu,
}
_REASONS: dict[type[nn.Module], str] = {
    nn.Sigmoid: "a sigmoid that is not an activation",
    FP32SiLU: "an island in float32",
}


def apply(module: nn.Module) -> int:
    """Rewrite `module` in place. Return the number of activation modules changed."""
    found = [(name, type(child)) for name, child in module.named_modules() if type(child) in _OPERATORS]
    for name, kind in found:
        module.set_submodule(name, TanhActivation(_OPERATORS[kind]))
    return len(found)


def kept(module: nn.Module) -> dict[str, int]:
    """Return {reason: count} of the modules that have a sigmoid and are not rewritten."""
    found = Counter(_REASONS[type(child)] for child in module.modules() if type(child) in _REASONS)
    return dict(found)


class TanhActivation(nn.Module):
    """SiLU or QuickGELU, computed with tanh instead of sigmoid; it replaces a module without weights."""

    def __init__(self, operator: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.operator = operator

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of x, in the shape of x."""
        return self.operator(x)
