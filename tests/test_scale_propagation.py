"""What is known of each operator: the rules that exponents follow, and where they must not."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from support.traced_parts import component_of
from torch import Tensor, nn

from pocketdiffusion.export.component import Component
from pocketdiffusion.export.float16.scale_propagation import follow
from pocketdiffusion.quantize.exponents import exponents
from pocketdiffusion.runtime.errors import ProofError


class Between(nn.Module):
    """A convolution, `step`, a norm: the stream between the two is free unless `step` ties it down."""

    def __init__(self, step: Callable[["Between", Tensor], Tensor], gain: float) -> None:
        super().__init__()
        self.conv, self.other = nn.Conv2d(4, 8, 1), nn.Conv2d(4, 8, 1)
        self.norm, self.bias = nn.GroupNorm(2, 8), nn.Parameter(torch.ones(8, 1, 1))
        self.step, self.gain = step, gain

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.norm(self.step(self, self.conv(x) * self.gain)),)


def part(folder: Path, step: Callable[[Between, Tensor], Tensor], gain: float = 1e5) -> Component:
    x = torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    return component_of(folder, lambda: Between(step, gain), {"x": x}, {"y": (1, 8, 6, 6)}, {})


def exponents_of(part: Component) -> dict[str, int]:
    inputs = {name: x.numpy() for name, x in part.example(0).items()}
    return exponents(follow(part, (), [inputs]).flow)


FREE = {
    "nothing": lambda m, h: h,
    "a number as factor": lambda m, h: 2.0 * h / 3.0,
    "a sum of streams": lambda m, h: h + h * 0.5,
    "concatenated": lambda m, h: torch.cat([h, h], 1)[:, :8],
    "padded with zeros": lambda m, h: F.pad(h, (1, 1)),
    "upsampled": lambda m, h: F.interpolate(h, scale_factor=2.0),
}
TIED = {
    "a number added": lambda m, h: h + 1.0,
    "a weight added": lambda m, h: h + m.bias,
    "its own square": lambda m, h: h * h,
    "a weight as factor": lambda m, h: h * m.bias,
    "a weight divided by it": lambda m, h: m.bias / (h.abs() + 1.0),
    "a stream divided by it": lambda m, h: h / (h * 0.5),
    "padded with ones": lambda m, h: F.pad(h, (1, 1), value=1.0),
    "an activation": lambda m, h: F.silu(h),
}


@pytest.mark.parametrize("name", FREE)
def test_a_linear_stream_is_free(name: str, tmp_path: Path) -> None:
    assert max(exponents_of(part(tmp_path, FREE[name])).values()) >= 3


@pytest.mark.parametrize("name", TIED)
def test_what_is_not_linear_is_tied_down(name: str, tmp_path: Path) -> None:
    with pytest.raises(ProofError, match="cannot be scaled: use --recipe fp32"):
        exponents_of(part(tmp_path, TIED[name]))


def test_what_is_not_finite_is_said(tmp_path: Path) -> None:
    with pytest.raises(ProofError, match="not finite in float32"):
        exponents_of(part(tmp_path, lambda m, h: h, gain=float("inf")))
