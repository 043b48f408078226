"""Conformance vectors of noise, by torch's generator on the CPU."""

import numpy as np
import torch

from pocketdiffusion.runtime.verify.vectors import Arrays, Case, Vector

NOISE_DB = 130.0  # 1e-6 on values up to about 4
SEEDS = (0, 1, 42, 2**31, 2**32 - 1, 2**32 + 5, 2**53 + 1, 2**63, 2**64 - 1, -1, -(2**63))
KINDS: tuple[tuple[str, tuple[int, ...], str], ...] = (
    (
        "noise of 16 values and more",
        (16, 64, 256),
        "the noise is not torch's: mt19937 seeded with the seed's lowest 32 bits, 24 bits a word, blocks of 16 in "
        "which 8 radii come first, then 8 angles; a plain Box-Muller transform, which takes turns, gives other values",
    ),
    (
        "noise of no multiple of 16 values",
        (17, 33, 250),
        "if the count is no multiple of 16, the last 16 values are drawn anew with 16 fresh words",
    ),
    (
        "noise of under 16 values",
        (1, 1, 2, 15, 3),
        "under 16 values each takes float64 deviates, in pairs, of which the second waits for the next value",
    ),
    (
        "noise of successive draws",
        (16, 5, 33, 3, 64, 1, 16384, 60, 16),
        "draws of one seed go on where the last ended (posterior, start, steps), also between the two ways to draw; "
        "big pictures draw on past mt19937's 624 words",
    ),
)


def noise_vectors(arrays: Arrays) -> tuple[Vector, ...]:
    """For each kind of draws, a case a seed: -2^63 to 2^64 - 1, as text, since JSON's numbers lose them."""
    return tuple(
        Vector(
            name=name,
            kind="noise",
            tells=tells + "; or the seed was read as a JSON number, or its sign was lost",
            floor_db=NOISE_DB,
            cases=tuple(_case(seed, sizes, arrays) for seed in SEEDS),
        )
        for name, sizes, tells in KINDS
    )


def _case(seed: int, sizes: tuple[int, ...], arrays: Arrays) -> Case:
    generator = torch.Generator().manual_seed(seed)
    places: list[tuple[int, int]] = []
    values: list[float] = []
    for number, size in enumerate(sizes):
        drawn = torch.randn(size, generator=generator).numpy()
        kept = range(size) if size <= 17 else sorted({0, 1, 7, 8, 15, 16, size // 2, size - 17, size - 16, size - 1})
        places += [(number, at) for at in kept]
        values += [float(drawn[at]) for at in kept]
    return Case(
        label=f"seed {seed}",
        texts={"seed": str(seed)},
        arrays={
            "sizes": arrays.add(np.array(sizes, np.int32)),
            "draw": arrays.add(np.array([number for number, _ in places], np.int32)),
            "at": arrays.add(np.array([at for _, at in places], np.int32)),
        },
        expected={"values": arrays.add(np.array(values, np.float32))},
    )
