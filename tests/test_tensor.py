"""Lazy tensors: what is read of a file, and the text that tells two derivations apart."""

from pathlib import Path

import numpy as np
import pytest

from pocketdiffusion.export.checkpoints.tensor import Rows, Scaled, Stored


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    values = np.arange(12, dtype="<f4").reshape(6, 2)
    (tmp_path / "weights").write_bytes(values.tobytes())
    return Stored(tmp_path / "weights", 0, "float32", (6, 2))


def test_the_parts_of_a_fused_projection(stored: Stored) -> None:
    parts = [Rows(stored, 2, start) for start in (0, 2, 4)]
    assert [part.shape for part in parts] == [(2, 2)] * 3
    assert np.array_equal(np.concatenate([part.read() for part in parts]), stored.read())
    assert len({part.derivation for part in parts}) == 3
    assert all(part.places == (stored,) for part in parts)


def test_rows_nest(stored: Stored) -> None:
    assert Rows(Scaled(stored, 1), 1, 3).read().tolist() == [[12, 14]]
    assert Rows(stored, 4).derivation == "4 rows of float32[6, 2]"
