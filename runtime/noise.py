"""The noise of torch's CPU generator, without torch: the same seed gives the same latents as diffusers on a CPU.

The engine is mt19937 (Matsumoto and Nishimura, 1998). `torch.randn` in float32 turns its words into normal deviates by
Box and Muller's transform, in one of two ways:

- fewer than 16 values: one pair of float64 deviates from four words; the second one is kept for the next value;
- 16 or more: one float32 uniform per word, then blocks of 16: the first 8 uniforms determine the radii, the last 8
  the angles. If the count is not a multiple of 16, the last 16 values are drawn again with 16 further words.
"""

from collections.abc import Sequence
from math import cos, log1p, pi, prod, sin, sqrt

import numpy as np
from numpy.typing import NDArray

from pocketdiffusion.runtime.errors import UserError

BLOCK = 16


class TorchRandom:
    """A generator with the state of `torch.Generator().manual_seed(seed)`.

    `seed` is -2**63 .. 2**64 - 1, else UserError; like torch, only its lowest 32 bits (two's complement) count.
    """

    def __init__(self, seed: int) -> None:
        if not -(2**63) <= seed < 2**64:
            raise UserError(f"seed {seed} is out of range: take one from -2**63 to 2**64 - 1")
        self._words = np.random.MT19937()
        np.random.RandomState(self._words).seed(seed & 0xFFFFFFFF)  # mt19937's own seeding, which torch uses as well
        self._waiting: float | None = None

    def randn(self, shape: Sequence[int]) -> NDArray[np.float32]:
        """Return standard normal deviates, float32 of `shape`, as `torch.randn(shape, generator=...)` draws next."""
        size = prod(shape)
        values = self._blocks(size) if size >= BLOCK else np.array([self._one() for _ in range(size)], np.float32)
        return values.reshape(tuple(shape))

    def _one(self) -> float:
        """Return one float64 deviate, drawn as for fewer than 16 values."""
        if self._waiting is not None:
            value, self._waiting = self._waiting, None
            return value
        high, low, high2, low2 = (int(word) for word in self._words.random_raw(4))
        angle, radius = (((h << 32 | w) & (2**53 - 1)) * 2.0**-53 for h, w in ((high, low), (high2, low2)))
        angle, radius = 2 * pi * angle, sqrt(-2 * log1p(-radius))
        self._waiting = radius * sin(angle)
        return radius * cos(angle)

    def _blocks(self, size: int) -> NDArray[np.float32]:
        """Return `size` deviates, float32 [size], drawn as for 16 or more values."""
        uniform = self._uniform(size)
        if size % BLOCK == 0:
            return box_muller(uniform)
        full = size // BLOCK * BLOCK
        return np.concatenate([box_muller(uniform[:full])[: size - BLOCK], box_muller(self._uniform(BLOCK))])

    def _uniform(self, size: int) -> NDArray[np.float32]:
        """Return uniforms, float32 [size] in 0 <= u < 1, from the lowest 24 bits of each word."""
        return (self._words.random_raw(size) & (2**24 - 1)).astype(np.float32) * np.float32(2.0**-24)


def box_muller(uniform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute normal deviates, float32 [16 n], from uniforms 0 <= u < 1, float32 [16 n], in torch's order of each 16.

    The angle is rounded to float32 before its sine and cosine, as in torch; without that they differ by over 1e-6.
    """
    pairs = uniform.reshape(-1, 2, BLOCK // 2)
    radius = np.sqrt(-2 * np.log1p(-pairs[:, 0].astype(np.float64)))
    angle = (pairs[:, 1] * np.float32(2 * pi)).astype(np.float64)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32).reshape(-1)
