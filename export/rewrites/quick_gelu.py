"""Rule: CLIP's QuickGELU module becomes ONE operator, `pocketdiffusion::quick_gelu`, x * sigmoid(1.702 x).

Traced as it is written, it would be a product, a sigmoid and a product, to be found again by pattern. SiLU, the same
function with the factor 1, needs no rewrite: ATen has an operator of that name, which tracing keeps.

Fires on transformers' `QuickGELUActivation`. Must NOT fire on GELU or on its tanh approximation, which other CLIP text
models use (OpenCLIP's ViT-H in Stable Diffusion 2, ViT-bigG in SDXL): the functions differ by up to 0.02.

Source: https://github.com/hendrycks/GELUs, section 2 of https://arxiv.org/abs/1606.08415.
"""

import torch
from diffusers.models.activations import GEGLU, GELU
from torch import Tensor, nn
from transformers.activations import GELUActivation, QuickGELUActivation


def product(x: Tensor) -> Tensor:
    """Return x * sigmoid(1.702 x), in the shape of x."""
    return x * torch.sigmoid(1.702 * x)


quick_gelu = torch.library.custom_op("pocketdiffusion::quick_gelu", product, mutates_args=())


@quick_gelu.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


MARKS = {"quick_gelu": torch.ops.pocketdiffusion.quick_gelu.default}
BODIES = {torch.ops.pocketdiffusion.quick_gelu.default: product}


def apply(module: nn.Module) -> int:
    """Replace each QuickGELU of `module` by the custom op, in place. Return the number replaced."""
    found = [name for name, child in module.named_modules() if type(child) is QuickGELUActivation]
    for name in found:
        module.set_submodule(name, QuickGELU())
    return len(found)


def kept(module: nn.Module) -> dict[str, int]:
    """Return {reason: count} of the GELUs, which are not rewritten."""
    gelus = sum(isinstance(child, (nn.GELU, GELUActivation, GELU, GEGLU)) for child in module.modules())
    return {"is GELU, another function": gelus} if gelus else {}


class QuickGELU(nn.Module):
    """A replacement of transformers' `QuickGELUActivation`."""

    def forward(self, x: Tensor) -> Tensor:
        """Return QuickGELU of x, in the shape of x."""
        activated: Tensor = quick_gelu(x)
        return activated
