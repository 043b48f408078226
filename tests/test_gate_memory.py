"""The gate compares one value after the other: the recordings of a split UNet have gigabytes at full size."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pocketdiffusion.runtime.bundle.bundle import Bundle, open_bundle
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.verify import golden_cases, stages
from pocketdiffusion.runtime.verify.golden import read_golden
from pocketdiffusion.runtime.verify.recording import Trajectory
from pocketdiffusion.runtime.verify.stages import judge_stages


def test_the_gate_does_not_hold_what_it_has_compared(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory as numpy reports it: 20 times 16 MB."""

    def pictures(bundle: Bundle, t: Trajectory) -> Iterator[tuple[Array, Array]]:
        for _ in range(20):
            yield np.ones(2**21, np.float32), np.ones(2**21, np.float32)

    monkeypatch.setattr(stages, "_image", pictures)
    bundle = open_bundle(tiny_bundle)
    golden = read_golden(bundle)[:1]
    tracemalloc.start()
    try:
        judge_stages(bundle, golden)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 150e6


def test_golden_cases_are_compared_with_pages_of_the_files(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with another copy of all recordings."""
    read: list[Trajectory] = []

    def noting(*arguments: object) -> list[Trajectory]:
        read.extend(read_golden(*arguments))  # type: ignore[arg-type]
        return read

    monkeypatch.setattr(golden_cases, "read_golden", noting)
    assert list(golden_cases.compare_cases(open_bundle(tiny_bundle)))
    assert read and not any(trajectory.noise.flags.owndata or trajectory.noise.flags.writeable for trajectory in read)
