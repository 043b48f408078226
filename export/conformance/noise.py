"""Conformance vectors of noise, by torch's generator on the CPU."""

import numpy as np
import torch

from pocketdiffusion.runtime.verify.questions import DRAWS, NOISE_DB, SEEDS, noise_question
from pocketdiffusion.runtime.verify.vectors import Arrays, Case, Vector

# The mistakes that a difference shows, by the vector's name. These texts are written into bundles.
TELLS = {
    "noise of 16 values and more": (
        "the noise is not torch's: mt19937 seeded with the seed's lowest 32 bits, 24 bits a word, blocks of 16 in "
        "which 8 radii come first, then 8 angles; a plain Box-Muller transform, which takes turns, gives other values"
    ),
    "noise of no multiple of 16 values": (
        "if the count is no multiple of 16, the last 16 values are drawn anew with 16 fresh words"
    ),
    "noise of under 16 values": (
        "under 16 values each takes float64 deviates, in pairs, of which the second waits for the next value"
    ),
    "noise of successive draws": (
        "draws of one seed go on where the last ended (posterior, start, steps), also between the two ways to draw; "
        "big pictures draw on past mt19937's 624 words"
    ),
}


def noise_vectors(arrays: Arrays) -> tuple[Vector, ...]:
    """Return a vector for each kind of draws, with a case per seed: -2^63 to 2^64 - 1, as text, since JSON numbers
    would round them."""
    return tuple(
        Vector(
            name=name,
            kind="noise",
            tells=TELLS[name] + "; or the seed was read as a JSON number, or its sign was lost",
            floor_db=NOISE_DB,
            cases=tuple(_case(seed, sizes, arrays) for seed in SEEDS),
        )
        for name, sizes in DRAWS.items()
    )


def _case(seed: int, sizes: tuple[int, ...], arrays: Arrays) -> Case:
    generator = torch.Generator().manual_seed(seed)
    question = noise_question(seed, sizes)
    drawn = [torch.randn(size, generator=generator).numpy() for size in sizes]
    places = zip(question.arrays["draw"].tolist(), question.arrays["at"].tolist(), strict=True)
    return Case(
        label=f"seed {seed}",
        texts=dict(question.texts),
        arrays={name: arrays.add(array) for name, array in question.arrays.items()},
        expected={"values": arrays.add(np.array([drawn[number][at] for number, at in places], np.float32))},
    )
