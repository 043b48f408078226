"""The sinusoidal embedding of a timestep from its parts: as exact as diffusers' in float32, far nearer in float16."""

from math import log10
from typing import Any

import pytest
import torch
from diffusers.models.embeddings import Timesteps
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pocketdiffusion.export.rewrites.split_timesteps import SplitTimesteps, apply, by_parts, kept

EMBEDDINGS = [Timesteps(320, True, 0), Timesteps(64, False, 1)]
TIMESTEPS = (0.0, 1.0, 21.5, 63.0, 64.0, 333.0, 841.25, 999.0, 1500.0, 4095.0)  # sizes of pictures too


class Float16(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context that rounds every argument and result of every operator to float16."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        rounded = torch.utils._pytree.tree_map(_round, (args, kwargs or {}))
        return torch.utils._pytree.tree_map(_round, func(*rounded[0], **rounded[1]))


def _round(value: Any) -> Any:
    return value.half().float() if isinstance(value, Tensor) and value.is_floating_point() else value


def exact(embedding: Timesteps, timestep: float) -> Tensor:
    """In float64, with the frequencies that diffusers computes in float32."""
    frequencies = SplitTimesteps(embedding).frequencies.double() * timestep
    halves = [frequencies.sin(), frequencies.cos()]
    return torch.cat(halves[::-1] if embedding.flip_sin_to_cos else halves)[None]


def psnr(found: Tensor, expected: Tensor) -> float:
    error = float((found.double() - expected).square().mean().sqrt())
    return 20 * log10(float(expected.abs().max()) / max(error, 1e-12))


@pytest.mark.parametrize("timestep", TIMESTEPS)
@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_float32(embedding: Timesteps, timestep: float) -> None:
    """And nearer to the exact embedding than diffusers' own, where that rounds large products."""
    given, expected = torch.tensor([timestep]), exact(embedding, timestep)
    found = psnr(SplitTimesteps(embedding)(given), expected)
    assert found > 145
    assert timestep < 300 or found > psnr(embedding(given), expected) + 20


@pytest.mark.parametrize("timestep", [1.0, 250.0, 333.0, 667.0, 999.0, 1536.0])
@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_float16(embedding: Timesteps, timestep: float) -> None:
    """Where diffusers' has 45 dB at most from timestep 250 on. Every operator of the body is rounded."""
    given, expected = torch.tensor([timestep]), exact(embedding, timestep)
    split = SplitTimesteps(embedding)
    with Float16():  # type: ignore[no-untyped-call]
        before = embedding(given)
        halves = by_parts(given, split.frequencies, split.coarse, split.fine, split.rows).chunk(2, -1)
    after = torch.cat(halves[::-1] if split.cosine_first else halves, -1)
    assert psnr(after, expected) > 70
    assert timestep < 250 or psnr(before, expected) < 45


def test_several_timesteps() -> None:
    found = SplitTimesteps(EMBEDDINGS[0])(torch.tensor([999.0, 1.0, 64.0]))
    assert (
        found.shape == (3, 320) and float((found - EMBEDDINGS[0](torch.tensor([999.0, 1.0, 64.0]))).abs().max()) < 1e-4
    )


def test_what_it_leaves_alone() -> None:
    class Other(Timesteps):  # type: ignore[misc]
        pass

    left = nn.ModuleList([Timesteps(8, True, 0, scale=1000), Timesteps(9, True, 0), Other(8, True, 0)])
    assert kept(left) == {"is a subclass": 1, "has a scale": 1, "has an odd number of channels": 1}
    kinds = [type(child) for child in left]
    assert apply(left) == 0 and [type(child) for child in left] == kinds
