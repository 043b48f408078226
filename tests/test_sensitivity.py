"""What single weights cost: against the same by hand."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from support.analysis_here import analyse_here

from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.quantize.measure.analysis import SensitivityAnalysis
from pocketdiffusion.quantize.measure.cache import SensitivityTable
from pocketdiffusion.quantize.measure.sensitivity import SEARCH as SEARCH_CHECK
from pocketdiffusion.quantize.measure.sensitivity import floor_of_largest_error, read_prompt
from pocketdiffusion.quantize.qparams import ValueRange
from pocketdiffusion.quantize.scheme import FLOAT32, Plan, Scheme
from pocketdiffusion.runtime.program import HALVES
from pocketdiffusion.runtime.verify.metrics import Comparison, measure
from pocketdiffusion.runtime.verify.recording import first_middle_last_steps
from pocketdiffusion.search import search_requests

PROMPTS = "bell pepper\npurple heart\n"
W8, W8A8, W2 = Scheme("linear", 8), Scheme("linear", 8, activation="int8"), Scheme("linear", 2)
UNET_FILE = "unet/diffusion_pytorch_model.safetensors"
CONV_OUT, CONV_IN = "unet.conv_out.weight", "unet.conv_in.weight"


def analysis_of(folder: Path, scratch: Path) -> SensitivityAnalysis:
    """Of the checkpoint in `folder`, on two prompts."""
    (scratch / "search.txt").write_text(PROMPTS)
    checkpoint = open_checkpoint(str(folder))
    requests = search_requests(scratch / "search.txt")
    (scratch / "recorded").mkdir()
    return analyse_here(checkpoint, requests, scratch / "recorded", SensitivityTable())


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> SensitivityAnalysis:
    return analysis_of(tiny_checkpoint, tmp_path_factory.mktemp("analysis"))


def by_hand(analysis: SensitivityAnalysis, weight: str, scheme: Scheme, value_range: ValueRange | None) -> float:
    """The sensitivity of a weight of the UNet, from the definition: call by call, without any batch."""
    plan = Plan("test", {weight: scheme}, {} if value_range is None else {weight: value_range})
    runner, errors = analysis.subjects["unet"].run(plan), []
    for number in range(analysis.drawings.count):
        t = first_middle_last_steps(read_prompt(analysis.folder, number))
        found = t.calls["unet"]
        for negative, positive in zip(found[::2], found[1::2], strict=True):
            assert (negative.half, positive.half) == HALVES and negative.step == positive.step
            halves = [runner(case.inputs)["out_sample"] for case in (negative, positive)]
            given = halves[0] + t.guidance * (halves[1] - halves[0])
            halves = [case.outputs["out_sample"] for case in (negative, positive)]
            wanted = halves[0] + t.guidance * (halves[1] - halves[0])
            errors.append(np.mean(np.square(given - wanted)) / np.mean(np.square(wanted)))
    return float(np.mean(errors))


def test_a_sensitivity_is_the_error_of_the_guided_prediction(tiny: SensitivityAnalysis) -> None:
    found = tiny.of("unet", "onnx", "ort").sensitivity(W2)
    for weight in (CONV_IN, CONV_OUT):
        assert found[weight] == pytest.approx(by_hand(tiny, weight, W2, None), rel=1e-3)
    assert set(found) == set(tiny.subjects["unet"].weights)


@pytest.mark.slow
def test_integers_for_activations_cost_more(tiny: SensitivityAnalysis) -> None:
    """Of the range that the operator's input had on the very calls that are measured."""
    weight = "unet.down_blocks.0.resnets.0.conv1.weight"
    taken: list[Any] = []
    module = tiny.subjects["unet"].load()
    owner = module.get_submodule(weight.rpartition(".")[0])
    owner.register_forward_pre_hook(lambda _, arguments: taken.append(arguments[0]))
    tiny.of("unet", "onnx", "ort").sensitivity(W2)  # for the prompts to be there
    for number in range(tiny.drawings.count):
        t = first_middle_last_steps(read_prompt(tiny.folder, number))
        for case in t.calls["unet"]:
            module(*(torch.from_numpy(case.inputs[t.name].copy()) for t in tiny.subjects["unet"].spec.inputs))
    value_range = ValueRange(min(0.0, min(float(x.min()) for x in taken)), max(0.0, max(float(x.max()) for x in taken)))
    found = tiny.of("unet", "onnx", "ort").sensitivity(W8A8)
    assert found[weight] == pytest.approx(by_hand(tiny, weight, W8A8, value_range), rel=0.02)
    assert sum(found.values()) > 2 * sum(tiny.of("unet", "onnx", "ort").sensitivity(W8).values())


def test_measuring_leaves_the_weights_as_they_were(micro_checkpoint: Path, tmp_path: Path) -> None:
    """All weights in float32, after all the others: what is left is the rounding of batches."""
    tiny = analysis_of(micro_checkpoint, tmp_path)
    for component in ("text_encoder", "unet", "vae_decoder", "vae_encoder"):
        tiny.of(component, "onnx", "ort").sensitivity(W2)
        tiny.of(component, "onnx", "ort").sensitivity(W8A8)
        assert max(tiny.of(component, "onnx", "ort").sensitivity(FLOAT32).values()) < 1e-9
        assert min(tiny.of(component, "onnx", "ort").sensitivity(W2).values()) > 1e-7


def test_a_weight_that_integers_cannot_hold_comes_first(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """One huge element in each output channel: int8 leaves little of the others."""
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "model")
    tensors = safetensors.numpy.load_file(folder / UNET_FILE)
    tensors["conv_out.weight"][:, 0, 0, 0] = 300 * np.abs(tensors["conv_out.weight"]).max()
    safetensors.numpy.save_file(tensors, folder / UNET_FILE)
    found = analysis_of(folder, tmp_path).of("unet", "onnx", "ort").sensitivity(W8)
    worst = sorted(found, key=lambda name: -found[name])
    assert worst[0] == CONV_OUT and found[CONV_OUT] > 10 * found[worst[1]]


def test_nothing_is_measured_twice(tiny: SensitivityAnalysis) -> None:
    before = tiny.of("unet", "onnx", "ort").sensitivity(W2)
    asked = replace(tiny, pool=None)  # type: ignore[arg-type]
    assert asked.of("unet", "onnx", "ort").sensitivity(W2) == before


def test_a_floor_lets_the_largest_single_error_pass() -> None:
    """An outlier that hardly shows in the PSNR: the floor that follows from it is lower."""
    reference = np.random.default_rng(0).normal(size=(1, 10_000)).astype(np.float32)
    candidate = reference + np.float32(1e-4)
    candidate[0, 7] += 0.2
    report = measure("text_encoder.x", [Comparison("a", reference, candidate)], SEARCH_CHECK)
    bearable = floor_of_largest_error(report)
    assert bearable < report.psnr_db - 10
    assert replace(report, floor_db=bearable - 0.1).passed and not replace(report, floor_db=bearable + 0.1).passed
    for wrong in (np.full_like(reference, np.nan), np.full_like(reference, np.inf), reference[:, :5]):
        assert floor_of_largest_error(measure("x", [Comparison("a", reference, wrong)], SEARCH_CHECK)) == -np.inf
    assert floor_of_largest_error(measure("x", [Comparison("a", 0 * reference, reference)], SEARCH_CHECK)) == -np.inf
