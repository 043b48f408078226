"""Step tables: any sampler, as numbers that one loop can run.

Each row is one call of the UNet. With `x` the latents, `output` the guided UNet output and `m0, m1, ...` this row's
`m` and the `m` of earlier rows, newest first:

    output = unet(input_scale * x, timestep)
    m0 = p * x + q * output
    x  = a * x + b[0] * m0 + b[1] * m1 + ... + c * noise      (noise is drawn only where c is not 0)

Every engine rounds the factors to float32, adds the products from left to right in float32, and omits products whose
factor is 0.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Latents = NDArray[np.float32]

REACH = 5  # the number of m that a row can use, its own included


@dataclass(frozen=True)
class Step:
    """One call of the UNet. All floats are float64 here; engines apply them to float32 latents."""

    timestep: float
    input_scale: float
    p: float
    q: float
    a: float
    b: tuple[float, ...]
    c: float


@dataclass(frozen=True)
class StepTable:
    """The rows of one sampler at one number of steps. `start` is the number of leading rows that are skipped
    (image-to-image); 0 draws from pure noise.

    Pure noise starts at `init_noise_sigma * noise`. An image starts at `signal_scale * latents + noise_scale * noise`.
    """

    sampler: str
    prediction_type: str
    steps: int
    start: int
    init_noise_sigma: float
    signal_scale: float
    noise_scale: float
    rows: tuple[Step, ...]


def first_latents(table: StepTable, noise: Latents, image: Latents | None = None) -> Latents:
    """Return the latents before the first row, float32 of the shape of `noise`: from pure noise, or from an image's
    latents with noise added."""
    if image is None:
        return noise * np.float32(table.init_noise_sigma)
    return np.float32(table.signal_scale) * image + np.float32(table.noise_scale) * noise


def advance(
    row: Step, x: Latents, output: Latents, history: tuple[Latents, ...] = (), noise: Latents | None = None
) -> tuple[Latents, tuple[Latents, ...]]:
    """Return the latents after `row`, and the history for the next row; all arrays are float32 of one shape.

    `x` are the latents before it (not scaled by input_scale), `output` is the guided UNet output. `history` has the
    m's of earlier rows, newest first: () before the first row, then the history that the row before returned. `noise`
    is standard normal and required if row.c is not 0.
    """
    m = _sum((row.p, x), (row.q, output))
    history = (m, *history)[:REACH]
    products = [(row.a, x), *zip(row.b, history, strict=False)]
    if row.c:
        assert noise is not None, "this row needs noise"
        products.append((row.c, noise))
    return _sum(*products), history


def _sum(*products: tuple[float, Latents]) -> Latents:
    total = np.zeros_like(products[0][1])
    for factor, array in products:
        if factor:
            total = total + np.float32(factor) * array
    return total
