"""Writes the vectors that the Python, Kotlin and Swift engines must all meet, from the libraries they stand in for.

    python tests/golden/make.py

noise.json      torch.randn on the CPU
tokenizer.json  transformers' CLIPTokenizer over the built-in model's vocabulary
steps.json      runs of diffusers' schedulers, with the step tables that must follow them
tiles.json      decoded tiles and the picture that they are blended to, by section 10 of docs/BUNDLE.md, in torch
"""

import json
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
)
from prompts import PROMPTS
from support.step_columns import pack_steps
from transformers import CLIPTokenizer

from pocketdiffusion.runtime.sampling.samplers import step_table
from pocketdiffusion.runtime.sampling.schedule import read_schedule

HERE = Path(__file__).parent
TOKENIZER = HERE.parents[1] / "pocketdiffusion/models/emoji/tokenizer"

SEEDS = (0, 1, 42, 2**31, 2**32 - 1, 2**32 + 5, 2**53 + 1, 2**63, 2**64 - 1, -1, -(2**63))
DRAWS = (  # successive draws from one generator
    ((1,), (1,), (2,), (15,), (1, 4, 2, 2)),
    ((16,), (17,), (5,), (33,), (3,)),
    ((4, 64, 64), (1, 4, 3, 5), (1, 4, 64, 64)),
)

SD15 = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "clip_sample": False,
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
}
V = {**SD15, "prediction_type": "v_prediction"}
RUNS: tuple[tuple[str, Any, dict[str, Any], int, int], ...] = (  # sampler, scheduler, settings, steps, start
    ("ddim", DDIMScheduler, SD15, 4, 0),
    ("ddim", DDIMScheduler, V, 4, 1),
    ("dpmpp_2m", DPMSolverMultistepScheduler, SD15, 5, 0),
    ("dpmpp_2m", DPMSolverMultistepScheduler, SD15, 20, 15),
    ("dpmpp_2m_karras", DPMSolverMultistepScheduler, {**V, "use_karras_sigmas": True}, 4, 0),
    ("euler", EulerDiscreteScheduler, V, 4, 0),
    ("euler_ancestral", EulerAncestralDiscreteScheduler, SD15, 4, 0),
    ("euler_ancestral", EulerAncestralDiscreteScheduler, SD15, 5, 2),
    ("pndm", PNDMScheduler, SD15, 7, 0),
    ("pndm", PNDMScheduler, V, 5, 2),
)
SHAPE = (1, 4, 2, 2)
TILES = (  # height and width of the latents, scale, tile_size, tile_overlap
    ((3, 5), 2, 4, 2),
    ((2, 7), 2, 6, 2),  # a tile is higher than the picture
    ((1, 11), 1, 4, 1),  # the example of docs/BUNDLE.md: the last tile overlaps less
    ((6, 5), 1, 4, 3),  # three tiles and more on one pixel
)


def main() -> None:
    write("noise.json", {"tolerance": 1e-6, "cases": [noise_case(seed, draws) for seed in SEEDS for draws in DRAWS]})
    write("tokenizer.json", {"max_length": 77, "cases": [*tokenizer_cases("clip"), *tokenizer_cases("sd2", "!")]})
    write("steps.json", {"tolerance": 1e-4, "cases": [steps_case(*run) for run in RUNS]})
    write("tiles.json", {"tolerance": 0, "cases": [tiles_case(*layout) for layout in TILES]})


def write(name: str, content: dict[str, Any]) -> None:
    """JSON with one case a line, so that a changed case is a changed line."""
    head = {key: value for key, value in content.items() if key != "cases"}
    lines = ",\n".join(json.dumps(case, ensure_ascii=True) for case in content["cases"])
    text = json.dumps(head)[:-1] + f', "cases": [\n{lines}\n]}}\n'
    assert json.loads(text) == json.loads(json.dumps(content))
    (HERE / name).write_text(text, encoding="ascii")


def noise_case(seed: int, draws: tuple[tuple[int, ...], ...]) -> dict[str, Any]:
    """`seed` is text, since it is beyond a float64's integers. `values` are those at the flat indices `at`."""
    generator = torch.Generator().manual_seed(seed)
    entries = []
    for shape in draws:
        values = torch.randn(shape, generator=generator).flatten()
        size = len(values)
        at = (
            list(range(size))
            if size <= 64
            else [0, 1, 7, 8, 15, 16, size // 2, size - 17, size - 16, size - 8, size - 1]
        )
        entries.append({"shape": shape, "at": at, "values": floats(values.numpy()[at])})
    return {"seed": str(seed), "draws": entries}


def tokenizer_cases(name: str, pad_token: str = "<|endoftext|>") -> list[dict[str, Any]]:
    """`ids` end with the end token; the rest of the 77 is `pad_id`. `truncated` is the text that did not fit."""
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER, model_max_length=77, pad_token=pad_token)
    cases = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, max_length=77, truncation=True).input_ids
        whole = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)
        offsets = whole["offset_mapping"]
        cut = prompt[offsets[75][0] :] if len(offsets) > 75 else ""
        cases.append({"kind": name, "pad_id": tokenizer.pad_token_id, "prompt": prompt, "ids": ids, "cut": cut})
    return cases


def steps_case(sampler: str, kind: Any, config: dict[str, Any], steps: int, start: int) -> dict[str, Any]:
    """A run of the scheduler as diffusers' pipelines drive it, with a made-up model whose outputs are written down.

    An engine multiplies `noise` (and `image` where start is not 0) as the table says, compares with `first`, then runs
    each of `rows`: its input must be near `scaled`, and `output` brings it near `latents`. Near means within
    `tolerance` times the standard deviation of the expected array. `fresh` is the row's own noise, null where it needs
    none; `noise` and then each `fresh` are draws of one generator from `seed`.
    """
    scheduler = kind.from_config(config)
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(11)
    image = torch.linspace(-1.5, 1.5, 16).reshape(SHAPE)
    noise = torch.randn(SHAPE, generator=generator)
    timesteps = scheduler.timesteps[start:]
    if start:
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(start)
        x = scheduler.add_noise(image, noise, timesteps[:1])
    else:
        x = noise * scheduler.init_noise_sigma
    first, rows = x, []
    for number, timestep in enumerate(timesteps):
        scaled = scheduler.scale_model_input(x, timestep)
        output = torch.tanh(1.5 * scaled.roll(1, -1) - scaled.flip(1) + timestep / 500)
        fresh = None
        if sampler == "euler_ancestral":
            if number < len(timesteps) - 1:
                fresh = torch.randn(SHAPE, generator=torch.Generator().set_state(generator.get_state()))
            x = scheduler.step(output, timestep, x, generator=generator).prev_sample
        else:
            x = scheduler.step(output, timestep, x).prev_sample
        rows.append(
            {
                "timestep": timestep.item(),
                "scaled": floats(scaled.numpy()),
                "output": floats(output.numpy()),
                "fresh": None if fresh is None else floats(fresh.numpy()),
                "latents": floats(x.numpy()),
            }
        )
    table = step_table(sampler, read_schedule(config), steps, start)
    return {
        "scheduler": config,
        "table": pack_steps(table),
        "shape": SHAPE,
        "seed": "11",
        "noise": floats(noise.numpy()),
        "image": floats(image.numpy()) if start else None,
        "first": floats(first.numpy()),
        "rows": rows,
    }


def tiles_case(latents: tuple[int, int], scale: int, tile_size: int, tile_overlap: int) -> dict[str, Any]:
    """Tiles that a decoder might return and the picture of them, pixel by pixel, to be met exactly. `latents` is height
    and width, `rows` and `columns` are where tiles begin, in latents; `tiles` are [3, h, w] each, from left to right
    and from top to bottom; `picture` is [3, H, W]."""
    tile = [min(tile_size // scale, size) for size in latents]
    starts = []
    for size, length in zip(latents, tile, strict=True):
        count = 1 if length == size else ceil((size - length) / (length - tile_overlap // scale)) + 1
        starts.append([i * (size - length) // max(count - 1, 1) for i in range(count)])
    rows, columns = starts
    generator = torch.Generator().manual_seed(12)
    shape = (len(rows) * len(columns), 3, *(scale * length for length in tile))
    tiles = torch.randn(shape, generator=generator)
    strips = [
        blended(list(tiles[i * len(columns) : (i + 1) * len(columns)].movedim(3, 1)), columns, scale, latents[1])
        for i in range(len(rows))
    ]  # [W, 3, h] each
    picture = blended([strip.permute(2, 1, 0) for strip in strips], rows, scale, latents[0])  # [H, 3, W]
    return {
        "latents": latents,
        "scale": scale,
        "tile_size": tile_size,
        "tile_overlap": tile_overlap,
        "rows": rows,
        "columns": columns,
        "tiles": [floats(each.numpy()) for each in tiles],
        "picture": floats(picture.permute(1, 0, 2).numpy()),
    }


def blended(pieces: list[torch.Tensor], starts: list[int], scale: int, size: int) -> torch.Tensor:
    """Lay pieces over each other along their first axis, at `starts`, which are in latents like `size`."""
    laid = torch.full((scale * size, *pieces[0].shape[1:]), torch.nan)
    end = 0
    for start, piece in zip(starts, pieces, strict=True):
        at = scale * start
        for x, values in enumerate(piece):
            if at + x < end:
                weight = torch.tensor(2 * x + 1.0) / torch.tensor(2.0 * (end - at))
                laid[at + x] = laid[at + x] + weight * (values - laid[at + x])
            else:
                laid[at + x] = values
        end = at + len(piece)
    return laid


def floats(array: Any) -> list[float]:
    """float32 in the fewest digits that give it back."""
    return [float(str(value)) for value in np.asarray(array, np.float32).reshape(-1)]


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
