"""Comparison of every number in a bundle's step tables with the samplers' own tables of its schedule."""

from collections.abc import Iterator, Mapping

import numpy as np

from pocketdiffusion.runtime.bundle.bundle import Bundle
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.sampling.schedule import read_schedule
from pocketdiffusion.runtime.sampling.step_table import REACH
from pocketdiffusion.runtime.sampling.stored_tables import ROW, SCALES, TableFile, write_tables
from pocketdiffusion.runtime.verify.metrics import Comparison


def compare_step_tables(bundle: Bundle) -> Iterator[Comparison]:
    """Yield (computed, stored) of each column of each sampler, for the first rows of a run and for the later ones, and
    of each number that a run begins with, divided by the size of the computed number. The index in a column counts the
    rows of runs of 1, 2, 3, ... steps in sequence; in a column for rows after the first k, each run lacks its first k
    rows."""
    manifest = bundle.manifest
    stored = manifest.step_tables
    computed = write_tables(read_schedule(manifest.scheduler.config), stored.index.most_steps)
    for sampler in sorted({*computed.index.samplers, *stored.index.samplers}):
        given, expected = read_values(stored, sampler), read_values(computed, sampler)
        for label in sorted(given.keys() | expected.keys()):
            reference, candidate = (side.get(label, np.empty(0)) for side in (expected, given))
            size = np.where(reference == 0, 1, np.abs(reference))
            scaled = candidate / size if candidate.shape == size.shape else candidate
            yield Comparison(label, (reference / size).astype(np.float32), scaled.astype(np.float32))


def read_values(file: TableFile, sampler: str) -> Mapping[str, Array]:
    """Return all numbers that runs of a sampler read from a table file, by name; empty if the file has no such
    sampler."""
    stored = file.index.samplers.get(sampler)
    if stored is None:
        return {}
    numbers = np.frombuffer(file.raw, "<f4")
    row = np.concatenate([np.arange(rows) for rows in stored.rows])
    found: dict[str, Array] = {
        f"rows of {sampler}": np.array(stored.rows, np.float64),
        f"init_noise_sigma of {sampler}": np.array(stored.init_noise_sigma),
    }
    for k in range(REACH + 1):
        holders = [*stored.restarts[k : k + 1], stored] if k < REACH else [stored]
        for name in ROW if k else (*ROW, *SCALES):
            holder = next(each for each in holders if name in each.columns or name in each.constants)
            if name in holder.constants:
                values = np.full(len(row), holder.constants[name])
            else:
                begin = holder.columns[name] // 4
                values = numbers[begin : begin + len(row)].astype(np.float64)
            found[f"{name} of {sampler}, {k} rows into a run"] = values[row >= k]
    return found
