"""The questions of the conformance vectors, for any model: prompts, seeds, inputs, counts of steps, and tolerances.

export/conformance computes the answers with the original libraries. `verify` compares the vectors of a bundle with
these questions (vector_check.py), so that a removed vector or case, or a lowered floor, is found. A bundle may have
more cases than these, as a later version may write."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import log10

import numpy as np

from pocketdiffusion.runtime.bundle.tokenizer_records import Tokenizer
from pocketdiffusion.runtime.noise import TorchRandom
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.verify.prompts import PROMPTS, added_prompts

EXACT_DB = 200.0  # equality
NOISE_DB = 130.0  # 1e-6 on values up to about 4
NEAR_DB = 120.0  # float32, operations in the same order
RUN_DB = 105.0  # 6e-6 of the largest value; float32 in our order of operations has at least 112
POSTERIOR_DB = 110.0  # exp of float32
PIXEL_DB = 130.0  # diffusers divides by 255 before it doubles, which rounds the last bit differently

SEEDS = (0, 1, 42, 2**31, 2**32 - 1, 2**32 + 5, 2**53 + 1, 2**63, 2**64 - 1, -1, -(2**63))
DRAWS: Mapping[str, tuple[int, ...]] = {  # by the vector's name: sizes of successive draws
    "noise of 16 values and more": (16, 64, 256),
    "noise of no multiple of 16 values": (17, 33, 250),
    "noise of under 16 values": (1, 1, 2, 15, 3),
    "noise of successive draws": (16, 5, 33, 3, 64, 1, 16384, 60, 16),
}
GUIDANCES = (7.5, 1.5, 1.0000001, 1.0, 0.5, 0.0, -2.0)
POSTERIOR_SEED = 12  # for the noise of a posterior
POSTERIORS = (
    "log variances about 0",
    "log variances under -30, which is the least",
    "log variances over 20, which is the largest",
)

MOST_STEPS = 50
WHOLE = 9  # steps of the run that is kept row by row: linspace gives fractions of timesteps there
RUN_SEED = 11  # for the noise of runs: its draws are the draws of the ancestral sampler
RUN_SHAPE = (1, 4, 2, 2)


@dataclass(frozen=True)
class Question:
    """One case: its inputs by name. Floats of `arrays` are random numbers, which another version of their library may
    round differently, unless they are `exact`."""

    texts: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    arrays: Mapping[str, Array] = field(default_factory=dict)
    exact: bool = False


@dataclass(frozen=True)
class Asked:
    """One vector: its kind, its floor in dB, and its questions by the label of the case."""

    kind: str
    floor_db: float
    cases: Mapping[str, Question]


def fixed_questions() -> dict[str, Asked]:
    """Return, by the vector's name, the questions that depend on no model: noise, guidance, the VAE's scale,
    pictures."""
    asked = {
        name: Asked("noise", NOISE_DB, {f"seed {seed}": noise_question(seed, sizes) for seed in SEEDS})
        for name, sizes in DRAWS.items()
    }
    negative, positive = random_values(1, (16,)), random_values(2, (16,))
    asked["guidance"] = Asked(
        "guidance",
        NEAR_DB,
        {
            f"guidance {scale}": Question(
                numbers={"guidance": scale}, arrays={"negative": negative, "positive": positive}
            )
            for scale in GUIDANCES
        },
    )
    latents = random_values(3, (1, 4, 2, 2)) * np.float32(5)
    asked["decoder scale"] = Asked("decoder_scale", NEAR_DB, {"latents": Question(arrays={"latents": latents})})
    for label in POSTERIORS:
        given = {"parameters": posterior_parameters(label), "noise": TorchRandom(POSTERIOR_SEED).randn((1, 4, 2, 2))}
        asked[f"posterior, {label}"] = Asked("posterior", POSTERIOR_DB, {label: Question(arrays=given)})
    asked["picture to array"] = Asked(
        "picture_to_array", PIXEL_DB, {"all levels": Question(arrays={"picture": all_levels()}, exact=True)}
    )
    for name, array in decoded_arrays().items():
        question = Question(arrays={"array": array}, exact=True)
        asked[f"array to picture, {name}"] = Asked("array_to_picture", EXACT_DB, {name: question})
    return asked


def token_questions(tokenizer: Tokenizer, number: int) -> dict[str, Asked]:
    """Return, by the vector's name, the questions to the tokenizer `number` (from 1): PROMPTS, prompts with its added
    tokens, and the digests of its files."""
    prompts = {name: texts for name, (_, texts) in PROMPTS.items()}
    if added := tuple(added_prompts([token.text for token in tokenizer.added_tokens])):
        prompts["added tokens"] = added
    numbers = {"tokenizer": float(number)} if number > 1 else {}
    suffix = f", tokenizer {number}" if number > 1 else ""
    asked = {
        f"prompts, {name}{suffix}": Asked(
            "tokens", EXACT_DB, {repr(text): Question(texts={"prompt": text}, numbers=numbers) for text in texts}
        )
        for name, texts in prompts.items()
    }
    asked[f"vocabulary{suffix}"] = Asked("vocabulary", EXACT_DB, {"vocabulary": Question(numbers=numbers)})
    return asked


def noise_question(seed: int, sizes: tuple[int, ...]) -> Question:
    """Return the question for draws of `sizes` with `seed`: all values of a short draw, and of a long one the values at
    its seams. Seeds are text, because JSON's numbers lose digits."""
    places: list[tuple[int, int]] = []
    for number, size in enumerate(sizes):
        kept = range(size) if size <= 17 else sorted({0, 1, 7, 8, 15, 16, size // 2, size - 17, size - 16, size - 1})
        places += [(number, at) for at in kept]
    return Question(
        texts={"seed": str(seed)},
        arrays={
            "sizes": np.array(sizes, np.int32),
            "draw": np.array([number for number, _ in places], np.int32),
            "at": np.array([at for _, at in places], np.int32),
        },
    )


def posterior_parameters(label: str) -> Array:
    """Return means and log variances of one of POSTERIORS, float32 [1, 8, 2, 2]."""
    mean, log_variance = random_values(4, (1, 4, 2, 2)), random_values(5, (1, 4, 2, 2)) * np.float32(3)
    parts = {
        POSTERIORS[0]: (mean, log_variance),
        POSTERIORS[1]: (mean * 0, np.full_like(mean, -40)),
        POSTERIORS[2]: (mean, np.full_like(mean, 30)),
    }
    return np.concatenate(parts[label], axis=1)


def all_levels() -> Array:
    """Return a picture with each of the 256 levels in each channel, uint8 [16, 16, 3]."""
    levels = np.stack([np.arange(256), np.arange(256)[::-1], np.arange(256) ^ 85], axis=-1).astype(np.uint8)
    return levels.reshape(16, 16, 3)


def decoded_arrays() -> dict[str, Array]:
    """Return decoder outputs, float32 [1, 3, h, w], by the name of the difficulty that they test."""
    odd = [np.nan, np.inf, -np.inf, 1e30, -1e30, 0.0, 1.0, -1.0, np.nan, 2.0, -2.0, 0.5]
    return {
        "rounding": np.linspace(-1.2, 1.2, 768, dtype=np.float32).reshape(1, 3, 16, 16),
        "ties": _ties(),
        "NaN and infinity": np.array(odd, np.float32).reshape(1, 3, 2, 2),
    }


def _ties() -> Array:
    """Return decoder outputs, float32 [1, 3, 4, w], that are exactly half-way between two levels."""
    found = []
    for level in range(255):
        about = np.float32((level + 0.5) / 255 * 2 - 1)
        near = [about]
        for side in (-np.inf, np.inf):
            value = about
            for _ in range(4):
                value = np.nextafter(value, np.float32(side))
                near.append(value)
        for value in near:
            if (value * np.float32(0.5) + np.float32(0.5)) * np.float32(255) == np.float32(level + 0.5):
                found.append(value)
                break
    found += found[: -len(found) % 12]
    return np.array(found, np.float32).reshape(1, 3, 4, -1)


def run_outputs() -> Array:
    """Return the numbers that the model of a run adds in each row, float32 [51, 16]."""
    return random_values(8, (MOST_STEPS + 1, 16))


def run_image() -> Array:
    """Return the latents of the picture that runs of image to image start from, float32 [16]."""
    return random_values(9, (16,))


def run_noise() -> Array:
    """Return the noise of the start and of each row, float32 [52, 16]."""
    random = TorchRandom(RUN_SEED)
    return np.stack([random.randn(RUN_SHAPE).reshape(16) for _ in range(MOST_STEPS + 2)])


def run_starts(steps: int) -> list[int]:
    """Return the rows at which runs of image to image start: the middle one, and for some counts of steps the second
    and the last one too."""
    return sorted({steps // 2, *((1, steps - 1) if steps in (5, 9, 20, MOST_STEPS) else ())})


def asked_runs(counts: Iterator[int] | list[int]) -> Iterator[tuple[bool, int, int]]:
    """Yield (from a picture, steps, start) of each run of a sampler that has tables for these counts of steps."""
    for steps in counts:
        yield False, steps, 0
        yield from ((True, steps, start) for start in run_starts(steps))


def run_floor_db(first: Array, latents: Array) -> float:
    """Return the floor (dB) of a run: RUN_DB, or less if the first latents are so large (4096 in schedules that end in
    pure noise) that float32 cannot reach RUN_DB: then an error of two units in the last place of the largest value.
    `first`: float32 [16], before the first row. `latents`: float32 [rows, 16]."""
    largest = float(np.abs(latents).max(initial=float(np.abs(first).max())))
    size = float(np.abs(latents[-1]).max())
    return min(RUN_DB, 20 * log10(size / (largest * 2.0**-22)))


def random_values(seed: int, shape: tuple[int, ...]) -> Array:
    """Return standard normal deviates from numpy's default generator, float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
