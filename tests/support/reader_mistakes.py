"""Mistakes that a new reader makes, each with the conformance vector that it fails and what that says."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from pocketdiffusion.runtime.noise import BLOCK, TorchRandom
from pocketdiffusion.runtime.sampling.step_table import Step, StepTable, advance
from pocketdiffusion.runtime.tokenizer import Tokens
from pocketdiffusion.runtime.verify.conformance import Reader


def with_rows(change: Callable[[Step], Step]) -> Callable[[Reader], dict[str, Any]]:
    """A reader whose step tables have changed rows."""

    def changed(reader: Reader) -> dict[str, Any]:
        def table(sampler: str, steps: int, start: int) -> StepTable:
            found = reader.table(sampler, steps, start)
            return replace(found, rows=tuple(change(row) for row in found.rows))

        return {"table": table}

    return changed


def plain_slice(reader: Reader) -> dict[str, Any]:
    """A start as the rows behind it, their first ones unchanged."""

    def table(sampler: str, steps: int, start: int) -> StepTable:
        found = reader.table(sampler, steps, start)
        return replace(found, rows=reader.table(sampler, steps, 0).rows[start:])

    return {"table": table}


def plain_box_muller(seed: int, sizes: list[int]) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    """Radius and angle of each pair side by side."""
    drawn = []
    for size in sizes:
        uniform = TorchRandom(seed)._uniform(-(-size // BLOCK) * BLOCK).astype(np.float64)
        radius, angle = np.sqrt(-2 * np.log1p(-uniform[::2])), 2 * np.pi * uniform[1::2]
        values = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)
        drawn.append(values[:size].astype(np.float32))
    return drawn


def one_level(array: np.ndarray[Any, Any], round: Callable[[Any], Any]) -> np.ndarray[Any, Any]:
    unit = np.clip(np.nan_to_num(array[0], nan=-1.0) * np.float32(0.5) + np.float32(0.5), 0, 1) * np.float32(255)
    return np.asarray(round(unit), np.uint8).transpose(1, 2, 0)


def halves(parameters: Any) -> Any:
    return np.split(parameters, 2, axis=1)


# A mistake, what the reader then does, the vector that it fails, and what that says.
MISTAKES: dict[str, tuple[Callable[[Reader], dict[str, Any]], str, str]] = {
    "history dropped": (
        lambda r: {"advance": lambda row, x, output, history, noise: (advance(row, x, output, (), noise)[0], ())},
        "runs, dpmpp_2m",
        "history of m dropped",
    ),
    "oldest b first": (
        with_rows(lambda row: replace(row, b=row.b[::-1])),
        "runs, dpmpp_2m_karras",
        "oldest taken first",
    ),
    "oldest b first in pndm": (with_rows(lambda row: replace(row, b=row.b[::-1])), "runs, pndm", "oldest taken first"),
    "input_scale ignored": (
        with_rows(lambda row: replace(row, input_scale=1.0)),
        "run row by row, euler",
        "input_scale ignored",
    ),
    "integer timesteps": (
        with_rows(lambda row: replace(row, timestep=float(round(row.timestep)))),
        "runs, euler",
        "timesteps made integers",
    ),
    "c ignored": (
        lambda r: {"advance": lambda row, x, o, history, noise: advance(replace(row, c=0.0), x, o, history)},
        "runs, euler_ancestral",
        "noise of c left out",
    ),
    "noise_scale in place of init_noise_sigma": (
        lambda r: {
            "first": lambda table, noise, image: r.first(
                replace(table, init_noise_sigma=table.noise_scale), noise, image
            )
        },
        "start, ddim",
        "not at noise_scale * noise",
    ),
    "starts are plain slices": (plain_slice, "runs, pndm", "first rows"),
    "starts are plain slices, two steps back": (plain_slice, "runs, dpmpp_2m", "first rows"),
    "p and q ignored": (with_rows(lambda row: replace(row, p=0.0, q=1.0)), "runs, dpmpp_2m", "table"),
    "plain Box-Muller": (lambda r: {"draw": plain_box_muller}, "noise of 16 values and more", "Box-Muller"),
    "blocks alone": (
        lambda r: {
            "draw": lambda seed, sizes: [d[:n] for d, n in zip(r.draw(seed, [32] * len(sizes)), sizes, strict=True)]
        },
        "noise of under 16 values",
        "under 16 values",
    ),
    "tail not drawn anew": (
        lambda r: {
            "draw": lambda seed, sizes: [
                d[:n] for d, n in zip(r.draw(seed, [-(-n // 16) * 16 for n in sizes]), sizes, strict=True)
            ]
        },
        "noise of no multiple of 16 values",
        "drawn anew",
    ),
    "a new generator for each draw": (
        lambda r: {"draw": lambda seed, sizes: [r.draw(seed, [size])[0] for size in sizes]},
        "noise of successive draws",
        "go on where the last ended",
    ),
    "seed as a JSON number": (
        lambda r: {"draw": lambda seed, sizes: r.draw(min(int(float(seed)), 2**64 - 1), sizes)},
        "noise of 16 values and more",
        "JSON number",
    ),
    "guidance of swapped halves": (
        lambda r: {"guide": lambda negative, positive, scale: r.guide(positive, negative, scale)},
        "guidance",
        "halves in this order",
    ),
    "guidance under 1": (
        lambda r: {"guide": lambda n, p, scale: n + np.float32(scale) * (p - n)},
        "guidance",
        "at 1 and below",
    ),
    "SD1.5's VAE scale": (
        lambda r: {"unscale": lambda latents: latents / np.float32(0.18215)},
        "decoder scale",
        "Stable Diffusion 1.5's VAE scale",
    ),
    "SD1.5's VAE scale of pictures": (
        lambda r: {
            "posterior": lambda parameters, noise: (
                (halves(parameters)[0] + np.exp(0.5 * np.clip(halves(parameters)[1], -30, 20)) * noise)
                * np.float32(0.18215)
            )
        },
        "posterior, log variances about 0",
        "Stable Diffusion 1.5's VAE scale",
    ),
    "no clip of the log variance": (
        lambda r: {
            "posterior": lambda parameters, noise: r.posterior(
                np.concatenate([halves(parameters)[0], 0 * halves(parameters)[1]], axis=1),
                noise * np.exp(0.5 * halves(parameters)[1]),
            )
        },
        "posterior, log variances over 20, which is the largest",
        "clip(log variance, -30, 20)",
    ),
    "posterior of swapped halves": (
        lambda r: {"posterior": lambda parameters, noise: r.posterior(np.roll(parameters, 4, axis=1), noise)},
        "posterior, log variances about 0",
        "first half of the channels",
    ),
    "pictures by 128": (
        lambda r: {"from_uint8": lambda picture: r.from_uint8(picture) * np.float32(127.5 / 128)},
        "picture to array",
        "127.5",
    ),
    "floor": (
        lambda r: {"to_uint8": lambda a: one_level(a, np.floor)},
        "array to picture, rounding",
        "a floor in place",
    ),
    "ties away from 0": (
        lambda r: {"to_uint8": lambda a: one_level(a, lambda unit: np.floor(unit + np.float32(0.5)))},
        "array to picture, ties",
        "even level",
    ),
    "NaN as white": (
        lambda r: {"to_uint8": lambda a: r.to_uint8(np.nan_to_num(a, nan=1.0, posinf=np.inf, neginf=-np.inf))},
        "array to picture, NaN and infinity",
        "NaN becomes level 0",
    ),
    "no clamp": (
        lambda r: {
            "to_uint8": lambda a: ((a[0] * 0.5 + 0.5) * 255).round().astype(int).astype(np.uint8).transpose(1, 2, 0)
        },
        "array to picture, rounding",
        "clamp",
    ),
    "padding with 0": (
        lambda r: {"encode": lambda prompt: _padded_with_0(r.encode(prompt))},
        "prompts, plain",
        "not with 0",
    ),
    "no mask": (
        lambda r: {"encode": lambda prompt: replace(r.encode(prompt), mask=np.ones((1, 77), np.int32))},
        "prompts, plain",
        "padding",
    ),
    "final sigma": (
        lambda r: {"encode": lambda prompt: r.encode(prompt if "<|" in prompt else prompt.lower())},
        "prompts, lower case",
        "no final sigma",
    ),
    "Turkish i": (
        lambda r: {"encode": lambda prompt: r.encode(prompt.replace("I", "ı"))},
        "prompts, lower case",
        "Turkish",
    ),
    "lower case before marks": (
        lambda r: {"encode": lambda prompt: r.encode(prompt.lower())},
        "prompts, marks",
        "before lower case",
    ),
    "nothing said of the cut": (
        lambda r: {"encode": lambda prompt: replace(r.encode(prompt), truncated="")},
        "prompts, long prompts",
        "shown to the user",
    ),
}


def _padded_with_0(tokens: Tokens) -> Tokens:
    return replace(tokens, ids=np.where(tokens.mask, tokens.ids, 0).astype(np.int32))
