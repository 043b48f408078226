"""The measure itself: what it must catch, whatever the average says. The rivals' counter-examples are among these."""

from math import inf, nan

import numpy as np
import pytest

from pocketdiffusion.runtime.verify.metrics import Comparison, floor_db, image_psnr_db, measure, psnr_db, ssim

RNG = np.random.default_rng(0)
REFERENCE = RNG.standard_normal((2, 4, 64, 64)).astype(np.float32)
NOISE = RNG.standard_normal(REFERENCE.shape).astype(np.float32)


def judge(candidate: np.ndarray, floor: float = 65.0):  # type: ignore[no-untyped-def]
    return measure("unet.out_sample", [Comparison("case", REFERENCE, candidate)], rung="fp16", floor=floor)


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
    report = measure("unet.out_sample", cases, rung="fp16", floor=-inf)
    assert not report.passed and report.psnr_db == -inf and report.case_db[0] == inf
    assert report.peak == np.abs(REFERENCE).max()
    assert report.describe() == "unet.out_sample (fp16) is not finite in the original, first at [1, 2, 3, 4] in bad"
    both = measure("unet.out_sample", [Comparison("bad", reference, reference)], rung="fp16", floor=-inf)
    assert "in the original and in the artifact" in both.describe() and not both.passed
    other = measure("unet.out_sample", [Comparison("bad", REFERENCE, reference)], rung="fp16", floor=-inf)
    assert "is not finite in the artifact, first at [1, 2, 3, 4]" in other.describe()
    assert "is of another shape" in judge(REFERENCE[:, :, :32]).describe()


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
    report = measure("unet.out_sample", [*good, bad], rung="fp16", floor=65.0)
    assert report.psnr_db < 65 + 2 and report.worst_case == "bad" and report.cases == 100


def test_no_case_is_no_proof() -> None:
    assert not measure("unet.out_sample", [], rung="fp16", floor=65.0).passed


def test_a_reference_of_zeros_fails_where_the_candidate_is_not_zero() -> None:
    zeros = np.zeros((1, 4), np.float32)
    assert psnr_db(zeros, zeros + 1e-6, 0.0) == -inf
    assert not measure("x", [Comparison("c", zeros, zeros + np.float32(1))], rung="fp32", floor=65.0).passed


def test_the_floors_are_those_of_the_design() -> None:
    assert floor_db("float32", "float32") == 105
    assert floor_db("float16", "float32") == 65
    assert floor_db("float16", "float16") == floor_db("float32", "float16") == 58
    assert floor_db("float16", "float32", inf) == floor_db("float16", "float32", inf, device="arm64") == 105


def test_a_gpu_has_a_floor_of_its_own() -> None:
    assert floor_db("float32", "float32", device="gpu") == floor_db("float16", "float32", inf, device="gpu") == 90
    assert floor_db("float16", "float32", 70, device="gpu") == floor_db("float16", "float32", device="gpu") == 65


def test_a_verdict_names_where_it_ran() -> None:
    case = Comparison("case", REFERENCE, 2 * REFERENCE)
    report = measure("unet.out", [case], rung="fp16", floor=58, format="tflite", arithmetic="float16", device="arm64")
    assert report.describe().startswith("on arm64 in float16, tflite unet.out (fp16): ")
    assert measure("unet.out", [case], rung="fp16", floor=58).device == "host"


def test_an_inverted_picture_does_not_pass_by_wrapping_around() -> None:
    picture = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert image_psnr_db(picture, 255 - picture) < 9


def test_ssim_of_equal_and_of_unrelated_pictures() -> None:
    picture, other = RNG.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    assert ssim(picture, picture) == pytest.approx(1)
    assert abs(ssim(picture, other)) < 0.1
    with pytest.raises(ValueError, match="shapes"):
        ssim(picture, other[:32])
