"""Rule: GELU becomes its tanh approximation, x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))). This CHANGES THE MODEL.

The two differ by up to 4.7e-4, more than the floors of float32 allow. An export that includes it is therefore judged
twice: every other rewrite as always, and then this one, against `FLOOR_DB`, with the change of the model in the report;
its artifacts are compared with the module after the change.

Fires on the GEGLU and the GELU of diffusers' transformer blocks, on `torch.nn.GELU` and transformers' `GELUActivation`,
where they compute the error function. Must NOT fire on what is the tanh approximation already, on QuickGELU, which is
another function (up to 0.02 off), nor on subclasses.

Source: https://arxiv.org/abs/1606.08415, section 2.
"""

import torch
import torch.nn.functional as F
from diffusers.models import activations
from torch import Tensor, nn
from transformers.activations import GELUActivation

from pocketdiffusion.quantize.floors import CHANGED_DB

CHANGES = "GELU is its tanh approximation, up to 4.7e-4 off"
FLOOR_DB = CHANGED_DB


def approximation(x: Tensor) -> Tensor:
    """Return the tanh approximation of GELU, in the shape of x."""
    return F.gelu(x, approximate="tanh")


tanh_gelu = torch.library.custom_op("pocketdiffusion::tanh_gelu", approximation, mutates_args=())


@tanh_gelu.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


MARKS = {"gelu": torch.ops.pocketdiffusion.tanh_gelu.default}
BODIES = {torch.ops.pocketdiffusion.tanh_gelu.default: approximation}


def apply(module: nn.Module) -> int:
    """Rewrite `module` in place; names of parameters stay. Return the number of GELUs changed."""
    found = [(name, child) for name, child in module.named_modules() if _is_exact(child)]
    for name, child in found:
        if isinstance(child, activations.GEGLU | activations.GELU):
            child.gelu = tanh_gelu  # their method of that name, which `forward` calls
        else:
            module.set_submodule(name, TanhGELU())
    return len(found)


def kept(module: nn.Module) -> dict[str, int]:
    """Return {reason: count} of the GELUs that are not rewritten."""
    tanh = sum(
        isinstance(child, nn.GELU | activations.GELU) and child.approximate == "tanh" for child in module.modules()
    )
    return {"is the tanh approximation already": tanh} if tanh else {}


def _is_exact(module: nn.Module) -> bool:
    if type(module) in (activations.GEGLU, GELUActivation):
        return True
    return type(module) in (nn.GELU, activations.GELU) and module.approximate == "none"


class TanhGELU(nn.Module):
    """A replacement of a GELU module without weights."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the tanh approximation of GELU, in the shape of x."""
        activated: Tensor = tanh_gelu(x)
        return activated
