"""The measure itself: what it must catch, whatever the average says. The rivals' counter-examples are among these."""

from dataclasses import replace
from math import inf, nan

import numpy as np
import pytest

from pocketdiffusion.runtime.bundle.verdicts import Kind
from pocketdiffusion.runtime.verify.check import Check, Scope, Tolerance
from pocketdiffusion.runtime.verify.metrics import Comparison, image_psnr_db, measure, psnr_db, ssim
from pocketdiffusion.runtime.verify.tolerances import Measured, floor_db

RNG = np.random.default_rng(0)
REFERENCE = RNG.standard_normal((2, 4, 64, 64)).astype(np.float32)
NOISE = RNG.standard_normal(REFERENCE.shape).astype(np.float32)


def fp16(floor: float) -> Check:
    return Check(Kind.ARTIFACT, Tolerance(floor), Scope(recipe="fp16"))


def judge(candidate: np.ndarray, floor: float = 65.0):  # type: ignore[no-untyped-def]
    return measure("unet.out_sample", [Comparison("case", REFERENCE, candidate)], fp16(floor))


def test_equal_tensors_pass_with_infinite_psnr() -> None:
    report = judge(REFERENCE.copy())
    assert report.passed and report.psnr_db == inf and report.max_abs == 0


def test_psnr_is_that_of_the_formula() -> None:
    report = judge(REFERENCE + np.float32(1e-3) * NOISE)
    error = (REFERENCE.astype(np.float64) - (REFERENCE + np.float32(1e-3) * NOISE)).ravel()
    expected = 20 * np.log10(np.abs(REFERENCE).max() / np.sqrt(np.mean(error**2)))
    assert report.psnr_db == pytest.approx(expected, abs=1e-9)
    assert report.max_abs == pytest.approx(np.abs(error).max())


@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_one_value_that_is_not_finite_fails(value: float) -> None:
    candidate = REFERENCE.copy()
    candidate[1, 2, 3, 4] = value
    report = judge(candidate, floor=-1000.0)
    assert not report.passed and not report.finite and report.worst == (1, 2, 3, 4)


@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_a_reference_that_is_not_finite_proves_nothing(value: float) -> None:
    """The line says on which side it is, and where; the peak, and so other cases, stay what they are."""
    reference = REFERENCE.copy()
    reference[1, 2, 3, 4] = value
    cases = [Comparison("good", REFERENCE, REFERENCE), Comparison("bad", reference, REFERENCE)]
    report = measure("unet.out_sample", cases, fp16(-inf))
    assert not report.passed and report.psnr_db == -inf and report.case_db[0] == inf
    assert report.peak == np.abs(REFERENCE).max()
    assert report.describe() == "unet.out_sample (fp16) is not finite in the original, first at [1, 2, 3, 4] in bad"
    both = measure("unet.out_sample", [Comparison("bad", reference, reference)], fp16(-inf))
    assert "in the original and in the artifact" in both.describe() and not both.passed
    other = measure("unet.out_sample", [Comparison("bad", REFERENCE, reference)], fp16(-inf))
    assert "is not finite in the artifact, first at [1, 2, 3, 4]" in other.describe()
    assert "has another shape than the original's output" in judge(REFERENCE[:, :, :32]).describe()


def test_one_outlier_fails_that_the_average_would_hide() -> None:
    candidate = REFERENCE.copy()
    candidate[0, 0, 0, 0] += 0.1
    report = judge(candidate)
    assert report.psnr_db > 75, "the average is well over the floor"
    assert report.max_abs > report.max_abs_limit and not report.passed and report.worst == (0, 0, 0, 0)


def test_a_blow_up_fails_as_the_peak_is_the_reference_s() -> None:
    candidate = REFERENCE.copy()
    candidate[0, 1, 2, 3] = 6e4
    assert judge(candidate).psnr_db < 0


@pytest.mark.parametrize(
    "candidate",
    [np.zeros_like(REFERENCE), -REFERENCE, REFERENCE.swapaxes(-1, -2), REFERENCE * [[[[1]], [[1]], [[1]], [[0]]]]],
    ids=["zeros", "inverted", "transposed", "dropped channel"],
)
def test_grossly_wrong_tensors_fail(candidate: np.ndarray) -> None:
    assert not judge(candidate.astype(np.float32)).passed


def test_another_shape_fails() -> None:
    assert not judge(REFERENCE[:, :, :32]).passed


def test_the_worst_case_is_judged_not_the_mean() -> None:
    good = [Comparison(f"{n}", REFERENCE, REFERENCE) for n in range(99)]
    bad = Comparison("bad", REFERENCE, REFERENCE + np.float32(3e-3) * NOISE)
    report = measure("unet.out_sample", [*good, bad], fp16(65.0))
    assert report.psnr_db < 65 + 2 and report.worst_case == "bad" and report.cases == 100


def test_no_case_is_no_proof() -> None:
    assert not measure("unet.out_sample", [], fp16(65.0)).passed


def test_a_reference_of_zeros_fails_where_the_candidate_is_not_zero() -> None:
    zeros = np.zeros((1, 4), np.float32)
    assert psnr_db(zeros, zeros + 1e-6, 0.0) == -inf
    assert not measure("x", [Comparison("c", zeros, zeros + np.float32(1))], fp16(65.0)).passed


SINGLE, HALF, FAITHFUL = Scope(), Scope(storage="float16"), Measured(rounding_db=inf)


def test_the_floors_are_those_of_the_design() -> None:
    assert floor_db(SINGLE) == 105
    assert floor_db(HALF) == 65
    assert floor_db(replace(HALF, arithmetic="float16")) == floor_db(replace(SINGLE, arithmetic="float16")) == 58
    assert floor_db(HALF, FAITHFUL) == floor_db(replace(HALF, device="arm64"), FAITHFUL) == 105


def test_a_gpu_has_a_floor_of_its_own() -> None:
    single, half = (replace(scope, unit="gpu") for scope in (SINGLE, HALF))
    assert floor_db(single) == floor_db(half, FAITHFUL) == 90
    assert floor_db(half, Measured(rounding_db=70)) == floor_db(half) == 65


def test_a_verdict_names_where_it_ran() -> None:
    case = Comparison("case", REFERENCE, 2 * REFERENCE)
    scope = Scope("tflite", "float16", "float16", "arm64", "fp16")
    report = measure("unet.out", [case], Check(Kind.ARTIFACT, Tolerance(58.0), scope))
    assert report.describe().startswith("on arm64 in float16, tflite unet.out (fp16): ")
    assert measure("unet.out", [case], fp16(58)).device == "host"


def test_an_inverted_picture_does_not_pass_by_wrapping_around() -> None:
    picture = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert image_psnr_db(picture, 255 - picture) < 9


def test_ssim_of_equal_and_of_unrelated_pictures() -> None:
    picture, other = RNG.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    assert ssim(picture, picture) == pytest.approx(1)
    assert abs(ssim(picture, other)) < 0.1
    with pytest.raises(ValueError, match="shapes"):
        ssim(picture, other[:32])
