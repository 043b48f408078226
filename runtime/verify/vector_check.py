"""Comparison of a bundle's conformance vectors with the questions of every bundle (questions.py): no vector may be
missing, have other inputs, or have a lower floor."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from itertools import pairwise

import numpy as np

from pocketdiffusion.runtime.bundle.bundle import Bundle
from pocketdiffusion.runtime.program import host_values_of, image_to_image, text_to_image
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.verify.conformance import Reader, own_reader, run_rows
from pocketdiffusion.runtime.verify.questions import (
    NEAR_DB,
    RUN_DB,
    WHOLE,
    Asked,
    Question,
    asked_runs,
    fixed_questions,
    run_floor_db,
    run_image,
    run_noise,
    run_outputs,
    token_questions,
)
from pocketdiffusion.runtime.verify.vectors import ARRAYS, VECTORS, Case, Vector, find_array, read_vectors

CLOSE = 1e-5  # relative to the largest value: another version of a library may round random numbers differently
ANCESTRAL = "euler_ancestral"
REFUSED = {(ANCESTRAL, "sample")}  # (sampler, prediction type) that the original does not have
SLACK_DB = 0.5  # between the floors of a run computed from the original's latents and from ours
Run = tuple[bool, int, int]  # (from a picture, steps, start)


def vector_faults(bundle: Bundle) -> Iterator[str]:
    """Yield a sentence for each conformance vector or case that is missing, has another question than this version
    writes, or states a lower floor."""
    if {*bundle.manifest.conformance} != {VECTORS, ARRAYS}:
        yield "conformance in manifest.json does not list it and its arrays"
        return
    vectors, raw = read_vectors(bundle.folder)
    found: dict[str, Vector] = {}
    for vector in vectors.vectors:
        if vector.name in found:
            yield f"there are two vectors {vector.name}"
        found[vector.name] = vector
    for number, tokenizer in enumerate(bundle.manifest.tokenizers, 1):
        for name, asked in token_questions(tokenizer, number).items():
            yield from _question_faults(found, raw, name, asked)
            if asked.kind == "tokens" and name in found and f"attention_mask/{number}" in _hosts(bundle):
                cases = found[name].cases
                yield from (f"{name} has no mask for {case.label}" for case in cases if "mask" not in case.expected)
    for name, asked in fixed_questions().items():
        yield from _question_faults(found, raw, name, asked)
    reader = cache(partial(own_reader, bundle))
    index = bundle.manifest.step_tables.index
    for name, stored in index.samplers.items():
        if (name, index.prediction_type) not in REFUSED:
            counts = [n for n, rows in enumerate(stored.rows, 1) if rows]
            yield from _sampler_faults(name, counts, found, raw, reader)


def _hosts(bundle: Bundle) -> set[str]:
    """Return the host values that any stage uses."""
    stages = (*text_to_image(bundle.manifest.program).values(), *image_to_image(bundle.manifest.program).values())
    return {name for stage in stages for name in host_values_of(stage)}


def _question_faults(found: Mapping[str, Vector], raw: bytes, name: str, asked: Asked) -> Iterator[str]:
    """Yield the faults of a vector whose questions are the same for every model."""
    yield from _header_faults(found, name, asked.kind, asked.floor_db)
    for label, question in asked.cases.items() if name in found else ():
        if not any(_has_inputs(case, question, raw) for case in found[name].cases):
            yield f"{name} has no case {label}, which every bundle has"


def _header_faults(found: Mapping[str, Vector], name: str, kind: str, floor_db: float) -> Iterator[str]:
    if name not in found:
        yield f"there is no vector {name!r}"
    elif found[name].kind != kind:
        yield f"the vector {name} is of the kind {found[name].kind}, not {kind}"
    elif not found[name].floor_db >= floor_db:
        yield f"the floor of {name} is {found[name].floor_db:g}, and must be at least {floor_db:g}"


def _has_inputs(case: Case, question: Question, raw: bytes) -> bool:
    """Return True if a case has exactly the inputs of the question."""
    if case.texts != question.texts or case.numbers != question.numbers or case.arrays.keys() != question.arrays.keys():
        return False
    return all(_close(find_array(raw, at), question.arrays[name], question.exact) for name, at in case.arrays.items())


def _close(given: Array, expected: Array, exact: bool = False) -> bool:
    if given.shape != expected.shape or given.dtype != expected.dtype:
        return False
    if exact or given.dtype != np.float32:
        return np.array_equal(given, expected, equal_nan=given.dtype == np.float32)
    return bool((np.abs(given - expected) <= CLOSE * np.abs(expected).max()).all())


def _sampler_faults(
    sampler: str, counts: list[int], found: Mapping[str, Vector], raw: bytes, reader: Callable[[], Reader]
) -> Iterator[str]:
    """Yield the faults of the vectors of one sampler, which has tables for these `counts` of steps."""
    start, runs, by_row = (f"{name}, {sampler}" for name in ("start", "runs", "run row by row"))
    noise, rows = run_noise(), {"outputs": run_outputs(), "noise": run_noise()}
    named: dict[str, tuple[str, Mapping[str, Array]]] = {
        start: ("start", {"noise": noise[0]}),
        runs: ("run", rows),
        by_row: ("whole_run", rows),
    }
    met: dict[str, set[Run]] = {}
    for name, (kind, given) in named.items():
        floor = NEAR_DB if kind == "start" else -np.inf
        yield from _header_faults(found, name, kind, floor)
        if name not in found:
            return
        met[name] = set()
        for case in found[name].cases:
            if case.texts != {"sampler": sampler}:
                yield f"{name} is of another sampler in its case {case.label}"
            arrays = {label: find_array(raw, at) for label, at in case.arrays.items()}
            image = {"image": run_image()} if "image" in arrays else {}
            for label, expected in {**given, **image}.items():
                if label not in arrays or not _close(arrays[label], expected):
                    yield f"{name}, case {case.label}, has other {label} than every bundle"
            met[name] |= _runs(arrays)
    runs_asked = [*asked_runs(counts)]
    for name in (start, runs):
        for run in runs_asked:
            if run not in met[name] and _is_finite(reader(), sampler, run):
                yield f"{name} has no run of {_spell(run)}"
    most = max((steps for picture, steps, _ in met[runs] if not picture and steps <= WHOLE), default=0)
    if (False, most, 0) not in met[by_row]:
        yield f"{by_row} has no run of {most} steps"
    for name in (runs, by_row):
        floor = found[name].floor_db
        if not floor >= RUN_DB:
            own = min((_own_floor(reader(), sampler, run) for run in met[runs]), default=RUN_DB)
            if not floor >= own - SLACK_DB:
                yield f"the floor of {name} is {floor:g}, and must be at least {own:.1f}"


def _runs(arrays: Mapping[str, Array]) -> set[Run]:
    """Return the runs of a case."""
    steps, starts = (arrays[name].tolist() if name in arrays else [] for name in ("steps", "starts"))
    return {("image" in arrays, n, s) for n, s in zip(steps, starts, strict=False)}


def _spell(run: Run) -> str:
    picture, steps, start = run
    return f"{steps} steps from {start}, {'from a picture' if picture else 'from noise'}"


def _own_run(reader: Reader, sampler: str, run: Run) -> tuple[Array, Array]:
    """Return the latents before the first row of a run, float32 [16], and after each row, [rows, 16], by our own
    arithmetic."""
    picture, steps, start = run
    given = {"outputs": run_outputs(), "noise": run_noise(), **({"image": run_image()} if picture else {})}
    first, rows = run_rows(reader, sampler, steps, start, given)
    return first, np.array([latents for _, _, latents in rows], np.float32)


def _is_finite(reader: Reader, sampler: str, run: Run) -> bool:
    """Return True if the original's run is finite; a run that is not is in no vector. For the ancestral sampler it may
    not be where ours is: its sqrt(to^2 - up^2) in float32 can be the root of a negative number, if the sigmas of two
    steps are so far apart (cosine schedules at 3 or 4 steps) that the square of their ratio is below float32's last
    bits."""
    _, steps, start = run
    if sampler == ANCESTRAL:
        sigmas = [reader.table(sampler, steps, each).noise_scale for each in range(start, steps)]
        if any(to < 1e-3 * sigma for sigma, to in pairwise(sigmas)):
            return False
    with np.errstate(all="ignore"):
        return bool(np.isfinite(_own_run(reader, sampler, run)[1]).all())


def _own_floor(reader: Reader, sampler: str, run: Run) -> float:
    return run_floor_db(*_own_run(reader, sampler, run))
