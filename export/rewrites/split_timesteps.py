"""Rule: the sinusoidal embedding of a timestep t becomes ONE operator, `pocketdiffusion::split_timesteps`, that
computes it from t's parts: t = 64 a + b + c, where a and b are integers below 64 and c is below 1.

The original multiplies t by each frequency and takes sine and cosine of the product, which is up to 999. In float16
numbers of that size are 0.5 apart, so that the phases of the high frequencies are wrong by up to 0.25 radians and more:
40 dB behind the time embedding of Stable Diffusion 1.5's shapes (random weights), 64 dB in the built-in model. Here
sine and cosine of 64 a f and b f are read from tables of 64 rows, by a product with a row that is one at a or b and
zero elsewhere, and the parts are joined by the sum formulas. Every value is then at most one, but for t and its parts.
In float32 it is as exact as the original: at t = 999 the original's own rounding of the product is the difference.

A timestep that float16 cannot represent, such as 841.3, is rounded before it arrives here. Other backends than TFLite's
refuse this rewrite (`rewrites_refused`).

Fires on diffusers' `Timesteps` with an even number of channels and scale 1. Must NOT fire on another number of channels
or scale, nor on subclasses. Timesteps, and the sizes that Stable Diffusion XL embeds, must be at least 0 and below
4096.

Source: sinusoidal embedding, https://arxiv.org/abs/1706.03762, section 3.5; sine and cosine of a sum,
https://dlmf.nist.gov/4.21#i.
"""

from math import log
from typing import Any

import torch
from diffusers.models.embeddings import Timesteps
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

ROWS = 64
MAX_PERIOD = 10000  # of diffusers' get_timestep_embedding


def by_parts(timesteps: Tensor, frequencies: Tensor, coarse: Tensor, fine: Tensor, rows: Tensor) -> Tensor:
    """Return the sines and then the cosines [batch, 2 n] of `timesteps` [batch] times `frequencies` [n], float32.
    `coarse` and `fine` [64, 2 n] have those of 64 a f and b f in their rows a and b; `rows` [64] has 0 to 63."""
    t = timesteps[:, None]
    high = torch.floor(t * (1 / ROWS))
    rest = t - ROWS * high
    low = torch.floor(rest)
    phase = (rest - low) * frequencies
    both = _of_sum(_look_up(high, coarse, rows), _look_up(low, fine, rows))
    return torch.cat(_of_sum(both, (torch.sin(phase), torch.cos(phase))), -1)


def _look_up(number: Tensor, table: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two halves of the row `number` [batch, 1], an integer, of `table`."""
    one_at_number = torch.relu(1 - torch.abs(number - rows))
    sine, cosine = torch.chunk(one_at_number @ table, 2, -1)
    return sine, cosine


def _of_sum(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return sine and cosine of the sum of two angles, each given by its sine and cosine."""
    return one[0] * other[1] + one[1] * other[0], one[1] * other[1] - one[0] * other[0]


split_timesteps = torch.library.custom_op("pocketdiffusion::split_timesteps", by_parts, mutates_args=())


@split_timesteps.register_fake
def _(timesteps: Tensor, frequencies: Tensor, coarse: Tensor, fine: Tensor, rows: Tensor) -> Tensor:
    return coarse.new_empty(timesteps.shape[0], coarse.shape[1])


MARKS = {"sinusoidal_embedding": torch.ops.pocketdiffusion.split_timesteps.default}
BODIES = {torch.ops.pocketdiffusion.split_timesteps.default: by_parts}


def apply(module: nn.Module) -> int:
    """Rewrite `module` in place. Return the number of embeddings changed."""
    found = [(name, child) for name, child in module.named_modules() if _is_plain(child)]
    for name, child in found:
        assert isinstance(child, Timesteps)
        module.set_submodule(name, SplitTimesteps(child))
    return len(found)


def _is_plain(module: Any) -> bool:  # diffusers has no types
    return type(module) is Timesteps and bool(module.scale == 1) and module.num_channels % 2 == 0


def kept(module: nn.Module) -> dict[str, int]:
    """Return {reason: count} of the embeddings that are not rewritten."""
    left = [child for child in module.modules() if isinstance(child, Timesteps) and not _is_plain(child)]
    plain = [child for child in left if type(child) is Timesteps]
    scaled = sum(child.scale != 1 for child in plain)
    counts = {
        "is a subclass": len(left) - len(plain),
        "has a scale": scaled,
        "has an odd number of channels": len(plain) - scaled,
    }
    return {reason: count for reason, count in counts.items() if count}


class SplitTimesteps(nn.Module):
    """A replacement of diffusers' `Timesteps`, which has no weights either: its tables are constants of the program."""

    def __init__(self, original: Timesteps) -> None:
        super().__init__()
        half = original.num_channels // 2
        with unset_fake_temporarily(), torch.device("cpu"):  # constants need values where a program is traced, too
            exponents = -log(MAX_PERIOD) * torch.arange(half, dtype=torch.float32)
            self.frequencies = torch.exp(exponents / (half - original.downscale_freq_shift))  # rounded as the original
            self.rows = torch.arange(ROWS, dtype=torch.float32)
            self.fine, self.coarse = (
                torch.cat([phases.sin(), phases.cos()], -1).float()
                for unit in (1, ROWS)
                for phases in [unit * self.rows.double()[:, None] * self.frequencies.double()]
            )
        self.cosine_first = original.flip_sin_to_cos

    def forward(self, timesteps: Tensor) -> Tensor:
        """Return the embedding [batch, channels] of timesteps [batch], float32."""
        found: Tensor = split_timesteps(timesteps.float(), self.frequencies, self.coarse, self.fine, self.rows)
        sine, cosine = torch.chunk(found, 2, -1)
        return torch.cat([cosine, sine], -1) if self.cosine_first else found
