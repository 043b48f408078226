"""Ranges of activations: counted one sample at a time, and chosen by three methods."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from pocketdiffusion.export import quantization
from pocketdiffusion.export.families import components
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.export.prompts import SEEDS, requests
from pocketdiffusion.export.quantization import analyse, calibrate
from pocketdiffusion.export.reference.record import REQUESTS, Request
from pocketdiffusion.models.emoji.prompts import SHEET
from pocketdiffusion.quantize.observers import BINS, HEADROOM, METHODS, Histogram, choose_range
from pocketdiffusion.quantize.qparams import ValueRange, affine
from pocketdiffusion.quantize.scheme import Scheme
from pocketdiffusion.runtime.errors import ProofError

RANDOM = np.random.default_rng(4)


def histogram(*samples: np.ndarray) -> Histogram:
    found = Histogram()
    for sample in samples:
        found.add(sample.astype(np.float32))
    return found


def test_a_histogram_of_many_samples_is_that_of_all_at_once() -> None:
    samples = [RANDOM.normal(0, size, 1000) for size in (0.01, 3, 1, 200)]
    one, other = histogram(*samples), histogram(np.concatenate(samples))
    assert (one.low, one.high) == (other.low, other.high) and one.counts.sum() == other.counts.sum() == 4000
    assert one.counts.shape == (BINS,) and other.reach <= one.reach <= 2 * other.reach
    one_share, other_share = [np.interp([-100, 0, 100], h.centres, np.cumsum(h.counts)) for h in (one, other)]
    assert np.allclose(one_share, other_share, atol=60)


def test_samples_of_zeros_are_counted() -> None:
    found = histogram(np.zeros(10), np.ones(5), np.zeros(3))
    assert found.counts.sum() == 8 and choose_range(found, "minmax", 8) == ValueRange(0, HEADROOM[8])
    nothing = histogram(np.zeros(10))
    assert all(choose_range(nothing, method, 8) == ValueRange(0, 0) for method in METHODS)


def test_a_sample_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        histogram(np.array([1, np.nan]))


def test_the_least_squared_error_cuts_outliers_off_where_steps_are_coarse() -> None:
    values = np.append(RANDOM.normal(0, 1, 1_000_000), [60.0])
    found = histogram(values)
    low, high = values.min() * HEADROOM[16], 60 * HEADROOM[16]
    whole = choose_range(found, "minmax", 16)
    assert (whole.low, whole.high) == pytest.approx((low, high))
    errors = {}
    for method in METHODS:
        value_range = choose_range(found, method, 8)
        scale, zero = affine(value_range, 8)
        quantized = np.clip(np.rint(values / scale) + zero, -128, 127)
        errors[method] = np.square((quantized - zero) * scale - values).mean()
    assert errors["mse"] < 0.5 * errors["minmax"] and errors["mse"] < errors["percentile"]
    assert choose_range(found, "mse", 16).high > 59  # fine steps: nothing is worth cutting


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    "value_range", [ValueRange(-1, 3), ValueRange(0, 5), ValueRange(-7, 0), ValueRange(-1e-6, 1e-6), ValueRange(0, 0)]
)
def test_zero_is_one_of_the_integers(value_range: ValueRange, bits: int) -> None:
    scale, zero = affine(value_range, bits)
    lowest = -(2 ** (bits - 1))
    assert scale > 0 and lowest <= zero <= -lowest - 1
    assert (lowest - zero) * scale <= value_range.low + scale
    assert value_range.high - scale <= (-lowest - 1 - zero) * scale


def test_a_model_is_counted_the_same_in_any_grouping(tiny_checkpoint: object, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = open_checkpoint(str(tiny_checkpoint))
    parts = components(checkpoint)
    wanted = [Request(prompt, seed=n, steps=2) for n, prompt in enumerate(["a", "b", "c", "d", "e"])]
    first = calibrate(checkpoint, parts, wanted, counting=True)
    monkeypatch.setattr(quantization, "TOGETHER", 2)
    second = calibrate(checkpoint, parts, wanted, counting=True)
    assert first.calibration == second.calibration and first.calibration.prompts == ("a", "b", "c", "d", "e")
    assert calibrate(checkpoint, parts, wanted[:4]).calibration.sha256 != first.calibration.sha256
    found, again, ranges_only = (each.statistics for each in (first, second, calibrate(checkpoint, parts, wanted)))
    for component in ("text_encoder", "unet", "vae_decoder", "vae_encoder"):
        ranges = found.ranges(component, 8)
        assert ranges.inputs.keys() == ranges.outputs.keys() and len(ranges.inputs) > 3
        assert again.ranges(component, 8) == ranges == ranges_only.ranges(component, 8)
        for one, other in zip(found.inputs[component].values(), again.inputs[component].values(), strict=True):
            np.testing.assert_array_equal(one.counts, other.counts)
        both = (*ranges.inputs.values(), *ranges.outputs.values())
        assert all(each.low <= 0 <= each.high and each.low < each.high for each in both)
    attention = "unet.mid_block.attentions.0.transformer_blocks.0.attn1"
    unet = found.ranges("unet", 8).inputs
    assert unet[f"{attention}.to_q.weight"] == unet[f"{attention}.to_k.weight"]  # they take the same tensor


@pytest.mark.slow
def test_a_model_that_is_not_finite_is_refused_by_the_weight(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """By calibration, and by an analysis that is asked before it."""
    file = "unet/diffusion_pytorch_model.safetensors"
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "model")
    tensors = safetensors.numpy.load_file(folder / file)
    tensors["conv_in.weight"] = np.sign(tensors["conv_in.weight"]) * np.float32(3e38)
    safetensors.numpy.save_file(tensors, folder / file)
    checkpoint = open_checkpoint(str(folder))
    parts, wanted = components(checkpoint), [Request("a", seed=1, steps=2)]
    with pytest.raises(ProofError, match="not finite at unet.conv_in.weight"):
        calibrate(checkpoint, parts, wanted)
    with analyse(checkpoint, parts, wanted, workers=1) as analysis, pytest.raises(ProofError, match="not finite"):
        analysis.of("unet", "onnx", "ort").sensitivity(Scheme("linear", 8, activation="int8"))


def test_no_two_uses_share_a_prompt_or_a_seed() -> None:
    used = sorted({*(request.prompt for request in REQUESTS), *SHEET})  # judged and shown
    seeds = [request.seed for request in REQUESTS]
    for name in SEEDS:
        used += [request.prompt for request in requests(name)]
        seeds += [request.seed for request in requests(name)]
    assert len(used) == len(set(used)) and len(seeds) == len(set(seeds))
    assert len(requests("test")) == 24


def test_without_counts_only_the_range_is_known() -> None:
    histogram = Histogram(counting=False)
    histogram.add(np.array([-1.0, 3.0], np.float32))
    assert choose_range(histogram, "minmax", 16) == ValueRange(-2, 6)
    with pytest.raises(ValueError, match="percentile needs counts"):
        choose_range(histogram, "percentile", 16)
    with pytest.raises(ValueError, match="not finite"):
        histogram.add(np.array([1.0, np.nan], np.float32))
