import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.noise import TorchRandom

GOLDEN = json.loads((Path(__file__).parent / "golden/noise.json").read_text())
SEEDS = (0, 1, 42, 1234567, 2**31, 2**32 - 1, 2**32, 2**32 + 42, 2**63, 2**64 - 1, -1, -42, -(2**32), -(2**63))
SHORT_AND_LONG: list[list[tuple[int, ...]]] = [
    [(1,)] * 5,
    [(15,), (15,), (1,), (15,), (2,)],
    [(16,)] * 5,
    [(1, 4, 2, 2), (17,), (5,), (33,), (3,)],  # a deviate waits across the long draws
    [(31,), (1, 4, 8, 8), (0,), (7, 7, 7), (3, 1)],
    [(1, 4, 64, 64), (1, 4, 24, 40), (1, 4, 64, 64), (1,), (4, 128, 128)],
]


@pytest.mark.parametrize("seed", SEEDS)
def test_equals_torch(seed: int) -> None:
    for shapes in SHORT_AND_LONG:
        generator, random = torch.Generator().manual_seed(seed), TorchRandom(seed)
        for shape in shapes:
            expected = torch.randn(shape, generator=generator).numpy()
            drawn = random.randn(shape)
            assert drawn.shape == expected.shape and drawn.dtype == np.float32
            assert np.abs(drawn - expected).max(initial=0) <= 1e-6, shape


def test_equals_torch_far_out() -> None:
    """A million draws reach deviates of about 5, where the float32 angle matters most."""
    expected = torch.randn(1_000_000, generator=torch.Generator().manual_seed(3)).numpy()
    assert np.abs(expected).max() > 4.5
    assert np.abs(TorchRandom(3).randn((1_000_000,)) - expected).max() <= 1e-6


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1])
def test_refuses_the_seeds_that_torch_refuses(seed: int) -> None:
    with pytest.raises(ValueError):
        torch.Generator().manual_seed(seed)
    with pytest.raises(UserError, match="out of range"):
        TorchRandom(seed)


def test_draws_the_golden_vectors() -> None:
    assert len(GOLDEN["cases"]) >= 30
    for case in GOLDEN["cases"]:
        random = TorchRandom(int(case["seed"]))
        for draw in case["draws"]:
            values = random.randn(draw["shape"]).reshape(-1)[draw["at"]]
            assert np.abs(values - draw["values"]).max() <= GOLDEN["tolerance"], case["seed"]


def test_is_quick() -> None:
    """The noise of a 1024x1024 picture; it takes about 1 ms, a loop in Python would take 100."""
    random = TorchRandom(0)
    seconds = []
    for _ in range(5):
        before = time.perf_counter()
        random.randn((4, 128, 128))
        seconds.append(time.perf_counter() - before)
    assert min(seconds) < 0.05
