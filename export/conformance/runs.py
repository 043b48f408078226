"""Conformance vectors of samplers: runs of diffusers' schedulers, driven as its pipelines drive them."""

import json
from collections.abc import Iterator, Mapping, Sequence
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
from pocketdiffusion.runtime.verify.vectors import ArrayAt, Arrays, Case, Vector

# What a mistake of a reader makes wrong in each kind of vector.
START_TELLS = (
    "text to image starts at init_noise_sigma * noise, not at noise_scale * noise; image to image at "
    "signal_scale * image + noise_scale * noise, both of the first row that runs"
)
RUN_TELLS = (
    "wrong for one count of steps: a number of its table; wrong for all: the history of m dropped or its oldest taken "
    "first, input_scale ignored, timesteps made integers, the noise of c left out, or a run whose first rows do not "
    "take the columns of `restarts`"
)
ROW_TELLS = (
    "row by row: input_scale ignored (scaled latents), timesteps made integers (timesteps), the history of m "
    "dropped or its oldest taken first, the noise of c left out (latents)"
)


@dataclass(frozen=True)
class _Run:
    """`first` [16] are the latents before the first row; the other arrays have one entry per row."""

    first: Array
    timesteps: Array
    scaled: Array
    latents: Array


_Runs = Mapping[tuple[int, int], _Run]  # the runs of one sampler by (steps, start)
_Stored = dict[str, ArrayAt]  # arrays of a case by name


def run_vectors(config: Mapping[str, Any], arrays: Arrays) -> tuple[Vector, ...]:
    """Return three vectors for each sampler that supports the scheduler's settings: the start, the end of a run for
    every number of steps, from noise and from a picture, and one run row by row."""
    vectors: list[Vector] = []
    runs = _runs(json.dumps(dict(config), sort_keys=True))
    noise = _noise().reshape(-1, 16)
    model = {"outputs": arrays.add(run_outputs()), "noise": arrays.add(noise)}
    image = {"image": arrays.add(run_image())}
    for sampler in dict.fromkeys(name for name, _, _, _ in runs):
        from_noise = {(n, s): run for (name, pictured, n, s), run in runs.items() if name == sampler and not pictured}
        from_picture = {(n, s): run for (name, pictured, n, s), run in runs.items() if name == sampler and pictured}
        starts, ends = [], []
        for label, some, start in (("from noise", from_noise, {}), ("from a picture", from_picture, image)):
            if some:
                given = _counts(list(some), arrays) | start
                starts.append(_start(label, sampler, some, {**given, "noise": arrays.add(noise[0])}, arrays))
                ends.append(_end(label, sampler, some, {**given, **model}, arrays))
        whole = _row_by_row(sampler, from_noise, model, arrays)
        floor = min(run_floor_db(run.first, run.latents) for run in (*from_noise.values(), *from_picture.values()))
        vectors += [
            Vector(name=f"start, {sampler}", kind="start", tells=START_TELLS, floor_db=NEAR_DB, cases=tuple(starts)),
            Vector(name=f"runs, {sampler}", kind="run", tells=RUN_TELLS, floor_db=floor, cases=tuple(ends)),
            Vector(
                name=f"run row by row, {sampler}", kind="whole_run", tells=ROW_TELLS, floor_db=floor, cases=(whole,)
            ),
        ]
    return tuple(vectors)


def _counts(runs: Sequence[tuple[int, int]], arrays: Arrays) -> _Stored:
    """Store the (steps, start) of runs, each int32 [runs]."""
    return {
        "steps": arrays.add(np.array([steps for steps, _ in runs], np.int32)),
        "starts": arrays.add(np.array([start for _, start in runs], np.int32)),
    }


def _start(label: str, sampler: str, runs: _Runs, given: _Stored, arrays: Arrays) -> Case:
    """Return the case of the latents, float32 [runs, 16], before the first row of each run."""
    first = np.stack([run.first for run in runs.values()])
    return Case(label=label, texts={"sampler": sampler}, arrays=given, expected={"latents": arrays.add(first)})


def _end(label: str, sampler: str, runs: _Runs, given: _Stored, arrays: Arrays) -> Case:
    """Return the case of the latents after the last row of each run and of their means over all rows, float32
    [runs, 16]."""
    last = np.stack([run.latents[-1] for run in runs.values()])
    means = np.stack([run.latents.mean(axis=0, dtype=np.float64).astype(np.float32) for run in runs.values()])
    expected = {"latents": arrays.add(last), "means": arrays.add(means)}
    return Case(label=label, texts={"sampler": sampler}, arrays=given, expected=expected)


def _row_by_row(sampler: str, runs: _Runs, model: _Stored, arrays: Arrays) -> Case:
    """Return the case of all rows of one run: the longest from noise of at most WHOLE steps."""
    steps = max(n for n, _ in runs if n <= WHOLE)
    given, run = _counts([(steps, 0)], arrays), runs[steps, 0]
    expected = {name: arrays.add(getattr(run, name)) for name in ("timesteps", "scaled", "latents")}
    return Case(label=f"{steps} steps", texts={"sampler": sampler}, arrays={**given, **model}, expected=expected)


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
