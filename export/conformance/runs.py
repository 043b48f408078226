"""Conformance vectors of samplers: runs of diffusers' schedulers, driven as its pipelines drive them."""

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from inspect import signature
from typing import Any

import diffusers
import numpy as np
import torch

from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.sampling.samplers import diffusers_class, sampler_names, step_table
from pocketdiffusion.runtime.sampling.schedule import read_schedule
from pocketdiffusion.runtime.verify.questions import (
    MOST_STEPS,
    NEAR_DB,
    RUN_SEED,
    RUN_SHAPE,
    WHOLE,
    run_floor_db,
    run_image,
    run_outputs,
    run_starts,
)
from pocketdiffusion.runtime.verify.vectors import Arrays, Case, Vector

WRONG = (
    "wrong for one count of steps: a number of its table; wrong for all: the history of m dropped or its oldest taken "
    "first, input_scale ignored, timesteps made integers, the noise of c left out, or a run whose first rows do not "
    "take the columns of `restarts`"
)


@dataclass(frozen=True)
class _Run:
    """`first` [16] are the latents before the first row; the other arrays have one entry per row."""

    first: Array
    timesteps: Array
    scaled: Array
    latents: Array


def run_vectors(config: Mapping[str, Any], arrays: Arrays) -> tuple[Vector, ...]:
    """Return three vectors for each sampler that supports the scheduler's settings: the start, the end of a run for
    every number of steps, from noise and from a picture, and one run row by row."""
    vectors: list[Vector] = []
    runs = _runs(json.dumps(dict(config), sort_keys=True))
    noise = _noise().reshape(-1, 16)
    shared = {"outputs": arrays.add(run_outputs()), "noise": arrays.add(noise)}
    image = {"image": arrays.add(run_image())}
    for sampler in dict.fromkeys(name for name, _, _, _ in runs):
        starts, ends = [], []
        for title, from_picture in (("from noise", False), ("from a picture", True)):
            some = {
                (n, s): run for (name, picture, n, s), run in runs.items() if (name, picture) == (sampler, from_picture)
            }
            if not some:
                continue
            given = {
                "steps": arrays.add(np.array([steps for steps, _ in some], np.int32)),
                "starts": arrays.add(np.array([start for _, start in some], np.int32)),
                **(image if from_picture else {}),
            }
            first, last, means = (np.stack([pick(run) for run in some.values()]) for pick in (_first, _last, _mean))
            texts = {"sampler": sampler}
            starts.append(
                Case(
                    label=title,
                    texts=texts,
                    arrays={**given, "noise": arrays.add(noise[0])},
                    expected={"latents": arrays.add(first)},
                )
            )
            ends.append(
                Case(
                    label=title,
                    texts=texts,
                    arrays={**given, **shared},
                    expected={"latents": arrays.add(last), "means": arrays.add(means)},
                )
            )
        floor = min(run_floor_db(run.first, run.latents) for (name, *_), run in runs.items() if name == sampler)
        vectors.append(
            Vector(
                name=f"start, {sampler}",
                kind="start",
                tells="text to image starts at init_noise_sigma * noise, not at noise_scale * noise; image to image at "
                "signal_scale * image + noise_scale * noise, both of the first row that runs",
                floor_db=NEAR_DB,
                cases=tuple(starts),
            )
        )
        vectors.append(Vector(name=f"runs, {sampler}", kind="run", tells=WRONG, floor_db=floor, cases=tuple(ends)))
        steps = max(n for name, picture, n, _ in runs if name == sampler and not picture and n <= WHOLE)
        run = runs[sampler, False, steps, 0]
        complete = Case(
            label=f"{steps} steps",
            texts={"sampler": sampler},
            arrays={
                "steps": arrays.add(np.array([steps], np.int32)),
                "starts": arrays.add(np.array([0], np.int32)),
                **shared,
            },
            expected={name: arrays.add(getattr(run, name)) for name in ("timesteps", "scaled", "latents")},
        )
        tells = (
            "row by row: input_scale ignored (scaled latents), timesteps made integers (timesteps), the history of m "
            "dropped or its oldest taken first, the noise of c left out (latents)"
        )
        vectors.append(
            Vector(name=f"run row by row, {sampler}", kind="whole_run", tells=tells, floor_db=floor, cases=(complete,))
        )
    return tuple(vectors)


def _first(run: _Run) -> Array:
    return run.first


def _last(run: _Run) -> Array:
    return np.asarray(run.latents[-1])


def _mean(run: _Run) -> Array:
    return np.asarray(run.latents.mean(axis=0, dtype=np.float64), np.float32)


def _noise() -> Array:
    generator = torch.Generator().manual_seed(RUN_SEED)
    return np.stack([torch.randn(RUN_SHAPE, generator=generator).numpy() for _ in range(MOST_STEPS + 2)])


@lru_cache(maxsize=8)
def _runs(config_json: str) -> dict[tuple[str, bool, int, int], _Run]:
    """Return the runs by (sampler, from a picture, steps, start): for each number of steps from noise and from the
    middle, for some also from the second and the last row. Left out are numbers of steps that a sampler or the original
    refuses, and runs of the original that are not finite (its ancestral sampler over a cosine schedule at 4 steps)."""
    config = json.loads(config_json)
    schedule = read_schedule(config)
    runs: dict[tuple[str, bool, int, int], _Run] = {}
    for sampler in sampler_names():
        name, settings = diffusers_class(sampler)
        scheduler = getattr(diffusers, name).from_config(config, **settings)
        for steps in range(1, MOST_STEPS + 1):
            try:
                step_table(sampler, schedule, steps)
                runs[sampler, False, steps, 0] = _run(deepcopy(scheduler), steps, 0, False)
            except (UserError, NotImplementedError):
                continue
            for start in run_starts(steps):
                runs[sampler, True, steps, start] = _run(deepcopy(scheduler), steps, start, True)
    return {key: run for key, run in runs.items() if np.isfinite(run.latents).all()}


def _run(scheduler: Any, steps: int, start: int, from_picture: bool) -> _Run:
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(start)
    generator = torch.Generator().manual_seed(RUN_SEED)
    noise = torch.randn(RUN_SHAPE, generator=generator)
    options = {"generator": generator} if "generator" in signature(scheduler.step).parameters else {}
    timesteps = scheduler.timesteps[start:]
    if from_picture:
        latents = scheduler.add_noise(torch.from_numpy(run_image()).reshape(RUN_SHAPE), noise, timesteps[:1])
    else:
        latents = noise * scheduler.init_noise_sigma
    first = latents.numpy().reshape(16)
    rows = list(_rows(scheduler, latents, timesteps, options))
    return _Run(first, *(np.array(column, np.float32) for column in zip(*rows, strict=True)))


def _rows(
    scheduler: Any, latents: torch.Tensor, timesteps: torch.Tensor, options: Mapping[str, Any]
) -> Iterator[tuple[float, Array, Array]]:
    outputs = run_outputs()
    for number, timestep in enumerate(timesteps):
        scaled = scheduler.scale_model_input(latents, timestep)
        output = torch.from_numpy(outputs[number]).reshape(RUN_SHAPE) + 0.25 * scaled + float(timestep) / 1000
        latents = scheduler.step(output, timestep, latents, **options).prev_sample
        yield float(timestep), scaled.numpy().reshape(16), latents.numpy().reshape(16)
