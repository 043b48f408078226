"""Arrays in files of their own: any shape and dtype comes back as it was, another is refused."""

from pathlib import Path

import numpy as np
import pytest

from pocketdiffusion.runtime.bundle.arrays import read_array, write_array
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.record import ArrayRef


@pytest.mark.parametrize("shape", [(), (0,), (1,), (5,), (2, 0, 3), (3, 4), (2, 3, 4, 5)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "int32", "int64", "uint8", ">f4", ">i8"])
def test_arrays_come_back_as_they_were(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    array = (1000 * np.random.default_rng(4).standard_normal(shape)).astype(np.float32).astype("int64").astype(dtype).T
    ref = write_array(tmp_path, "golden/a.bin", array)
    again = read_array(tmp_path, ref)
    assert again.shape == array.shape and again.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(again, array)
    assert again.flags.writeable and again.flags.c_contiguous
    assert (tmp_path / "golden/a.bin").read_bytes() == array.astype(array.dtype.newbyteorder("<")).tobytes("C")


def test_arrays_of_another_size_or_place_are_refused(tmp_path: Path) -> None:
    ref = write_array(tmp_path, "a.bin", np.zeros((2, 3), np.float32))
    assert read_array(tmp_path, ref).tobytes() == bytes(24)
    with pytest.raises(ProofError, match=r"a.bin is corrupt: 24 bytes, and float32\[2, 4\] has 32"):
        read_array(tmp_path, ArrayRef(path="a.bin", dtype="float32", shape=(2, 4)))
    with pytest.raises(ValueError, match="dtype"):
        write_array(tmp_path, "b.bin", np.zeros(2, np.complex64))
    with pytest.raises(ValueError, match="path"):
        write_array(tmp_path, "../b.bin", np.zeros(2, np.float32))
    assert [path.name for path in tmp_path.rglob("*")] == ["a.bin"] and not (tmp_path.parent / "b.bin").exists()
