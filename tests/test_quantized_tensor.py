"""Stored weights: quantized values within their bits, scales that float16 holds, errors as theory expects."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pocketdiffusion.quantize.kmeans import nearest, palette
from pocketdiffusion.quantize.quantized_tensor import Linear, Palette, nbytes, restore, store
from pocketdiffusion.quantize.scheme import FLOAT16, FLOAT32, Plan, Scheme

NORMAL = np.random.default_rng(1).normal(0, 0.05, (64, 96, 3, 3)).astype(np.float32)
# Of a normal distribution: quantizers of 4, 16 and 64 values have 9.30, 20.22 and 31.89 dB at best (Max 1960, Lloyd
# 1982); 15 values at equal distances 18.87.
THEORY_DB = {
    Scheme("palette", 2): 9.30,
    Scheme("palette", 4): 20.22,
    Scheme("palette", 6): 31.89,
    Scheme("linear", 4): 18.87,
}


def snr_db(weight: NDArray[np.float32], restored: NDArray[np.float32]) -> float:
    return float(20 * np.log10(np.linalg.norm(weight) / np.linalg.norm(weight - restored)))


@pytest.mark.parametrize("scheme", THEORY_DB, ids=lambda scheme: scheme.storage)
def test_errors_are_those_of_theory(scheme: Scheme) -> None:
    rows = NORMAL.reshape(1, -1)  # one scale, one table
    assert snr_db(rows, restore(store(rows, scheme))) == pytest.approx(THEORY_DB[scheme], abs=0.12)


@pytest.mark.parametrize("shape", [(64, 96, 3, 3), (96, 64), (50, 7)])
@pytest.mark.parametrize(
    "scheme",
    [Scheme("linear", 8), Scheme("linear", 4, 32), Scheme("linear", 2), Scheme("palette", 6, 16), Scheme("palette", 1)],
    ids=lambda scheme: scheme.storage,
)
def test_quantized_values_scales_and_tables(scheme: Scheme, shape: tuple[int, ...]) -> None:
    weight = np.random.default_rng(2).normal(0, 0.02, shape).astype(np.float32)
    stored = store(weight, scheme)
    assert isinstance(stored, Linear | Palette)
    assert stored.quantized.shape == shape and restore(stored).shape == shape and restore(stored).dtype == np.float32
    numbers = stored.scale if isinstance(stored, Linear) else stored.table
    assert np.array_equal(numbers, numbers.astype(np.float16).astype(np.float32))
    if isinstance(stored, Linear):
        blocks = shape[1] // 32 if scheme.group and shape[1] % 32 == 0 else 1
        assert np.abs(stored.quantized).max() <= 2 ** (scheme.bits - 1) - 1
        assert stored.scale.shape == (shape[0], blocks, *[1] * (len(shape) - 2))
        top = np.abs(weight.reshape(shape[0], blocks, -1)).max(2).reshape(stored.scale.shape)
        assert np.all(top <= (2 ** (scheme.bits - 1) - 1) * stored.scale * (2.001 if scheme.bits < 8 else 1.005))
    else:
        assert stored.quantized.max() < 2**scheme.bits
        assert len(stored.table) == (shape[0] // 16 if scheme.group and shape[0] % 16 == 0 else 1)
        assert np.all(np.diff(stored.table) >= 0)


def test_an_error_is_at_most_half_a_step() -> None:
    stored = store(NORMAL, Scheme("linear", 8))
    assert isinstance(stored, Linear)
    # the largest weight of a channel may lie beyond 127 steps, by the rounding of the scale to float16
    slack = stored.scale * 127 * 2.0**-11
    assert np.all(np.abs(restore(stored) - NORMAL) <= stored.scale / 2 + slack)


def test_float_schemes_round_or_do_not() -> None:
    assert np.array_equal(restore(store(NORMAL, FLOAT32)), NORMAL)
    assert np.array_equal(restore(store(NORMAL, FLOAT16)), NORMAL.astype(np.float16).astype(np.float32))


def test_zero_and_constant_channels_are_kept() -> None:
    weight = np.zeros((4, 32), np.float32)
    weight[1] = 0.5
    weight[2, 0] = 1e-9  # no scale of float16 is as small
    for scheme in (Scheme("linear", 8), Scheme("linear", 4, 32), Scheme("palette", 2, 1)):
        assert np.allclose(restore(store(weight, scheme)), np.where(weight == 0.5, weight, 0), atol=5e-4), scheme


@pytest.mark.parametrize("entries", [2, 4, 16])
def test_a_palette_is_as_good_as_scikit_learn(entries: int) -> None:
    from sklearn.cluster import KMeans

    values = np.random.default_rng(3).standard_t(4, 3000).astype(np.float32)
    ours = palette(values, entries)
    error = np.square(values - ours[nearest(values, ours)]).sum()
    theirs = KMeans(entries, n_init=5, random_state=0).fit(values[:, None]).inertia_
    assert error <= 1.03 * theirs


def test_few_values_stand_for_themselves() -> None:
    values = np.array([3, 1, 1, 2], np.float32)
    assert palette(values, 8).tolist() == [1, 2, 3, 3, 3, 3, 3, 3]
    assert restore(store(values.reshape(1, 4), Scheme("palette", 3))).tolist() == [values.tolist()]


def test_bytes_are_counted_with_scales_and_tables() -> None:
    assert nbytes((64, 96, 3, 3), FLOAT16) == 64 * 96 * 9 * 2
    assert nbytes((64, 96, 3, 3), Scheme("linear", 8)) == 64 * 96 * 9 + 64 * 2
    assert nbytes((64, 96), Scheme("linear", 4, 32)) == 64 * 96 // 2 + 64 * 3 * 2
    assert nbytes((64, 96), Scheme("palette", 6, 16)) == 64 * 96 * 6 // 8 + 4 * 64 * 2
    assert nbytes((50, 7), Scheme("palette", 3, 16)) == 132 + 8 * 2


def test_the_storage_of_a_plan_in_a_word() -> None:
    int8, island = Scheme("linear", 8), FLOAT16
    assert Plan("x", {"a": int8, "b": island}).storage == "int8"
    assert Plan("x", {"a": int8, "b": Scheme("palette", 4)}).storage == "mixed"
    assert Plan("x", {"a": FLOAT16}).storage == "float16" and Plan("x", {"a": FLOAT32}).storage == "float32"
    assert Plan("x", {"a": int8}).of("a.bias", (3,)) == FLOAT32
