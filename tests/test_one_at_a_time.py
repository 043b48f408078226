"""Drawing with at most one engine open: a UNet of two graphs, as a split one has them, by onnxruntime. All formats are
in tests/test_program_toy_family.py."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.command import call
from support.open_engines import OpenEngines

from pocketdiffusion.runtime import one_at_a_time as module
from pocketdiffusion.runtime.bundle.bundle import Bundle, open_bundle
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.memory import STATUS, return_freed_memory
from pocketdiffusion.runtime.one_at_a_time import one_at_a_time
from pocketdiffusion.runtime.pipeline import draw, generate

PROMPT = "red apple"
OPTIONS: dict[str, Any] = {"negative_prompt": "grey", "seed": 3, "steps": 3, "guidance": 5.0, "sampler": "ddim"}


@pytest.fixture(scope="module")
def whole(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)


@pytest.fixture(scope="module")
def split(whole: Bundle) -> Bundle:
    """The bundle with two calls in denoise: the second reads what the first returned, by another graph."""
    manifest = whole.manifest
    graphs = {"onnx": {**manifest.graphs["onnx"], "unet_2": manifest.graphs["onnx"]["unet"]}}
    stages = []
    for stage in manifest.program.stages:
        if stage.stage == "denoise":
            (first,) = stage.calls
            inputs = {**first.inputs, "sample": "between"}
            second = first.model_copy(update={"graph": "unet_2", "inputs": inputs})
            first = first.model_copy(update={"outputs": dict.fromkeys(first.outputs, "between")})
            stage = stage.model_copy(update={"calls": (first, second)})
        stages.append(stage)
    program = manifest.program.model_copy(update={"stages": tuple(stages)})
    return Bundle(whole.folder, manifest.model_copy(update={"graphs": graphs, "program": program}))


@pytest.mark.parametrize("batched", [True, False])
def test_one_engine_is_open_at_each_time_and_the_picture_is_the_same(split: Bundle, batched: bool) -> None:
    usual, low = OpenEngines(), OpenEngines()
    expected = list(generate(split, PROMPT, **OPTIONS, batched=batched, opener=usual))
    drafts = list(generate(split, PROMPT, **OPTIONS, batched=batched, low_memory=True, opener=low))
    assert usual.most() == 2 and usual.opened() == ["text_encoder", "unet", "unet_2", "vae_decoder"]
    assert low.most() == 1 and low.count() == 0
    assert low.opened() == ["text_encoder", *("unet", "unet_2") * 3, "vae_decoder"]
    calls = [[name for what, name, _ in each.events if what == "call"] for each in (usual, low)]
    assert calls[0] == calls[1] and len(calls[0]) == 2 + 3 * 2 * (1 if batched else 2) + 1
    for one, other in zip(expected, drafts, strict=True):
        assert np.array_equal(one.latents, other.latents)
    assert np.array_equal(expected[-1].picture, drafts[-1].picture)  # type: ignore[arg-type]


def test_a_stage_of_one_graph_opens_it_once(whole: Bundle) -> None:
    start = draw(whole, PROMPT, steps=1)
    low = OpenEngines()
    picture = draw(whole, PROMPT, **OPTIONS, batched=False, image=start, low_memory=True, opener=low)
    assert low.opened() == ["text_encoder", "vae_encoder", "unet", "vae_decoder"] and low.most() == 1
    assert np.array_equal(picture, draw(whole, PROMPT, **OPTIONS, batched=False, image=start))


@pytest.mark.parametrize("fails", [2, 3, 4, 6, 9])
def test_an_error_in_a_call_leaves_no_engine_open(split: Bundle, fails: int) -> None:
    """Also while it is handled: the traceback refers to the functions that had the engine."""
    low = OpenEngines(fails)
    with pytest.raises(ValueError, match="not float32|not int32|not int64") as caught:
        list(generate(split, PROMPT, **OPTIONS, batched=True, low_memory=True, opener=low))
    assert caught.value.__traceback__ is not None and low.count() == 0
    assert sum(what == "call" for what, _, _ in low.events) == fails


def test_an_error_inside_the_engine_leaves_no_engine_open(split: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime's own function is part of the traceback of the error that led to the runner's."""
    monkeypatch.setattr("pocketdiffusion.runtime.engines.onnx.check_inputs", lambda spec, inputs: None)
    low = OpenEngines(fails=4)
    with pytest.raises(ProofError, match="unet: onnxruntime cannot run this graph") as caught:
        list(generate(split, PROMPT, **OPTIONS, batched=True, low_memory=True, opener=low))
    assert caught.value.__context__ is not None and low.count() == 0


def test_an_error_while_opening_leaves_no_engine_open(split: Bundle) -> None:
    broken = split.manifest.graphs["onnx"]["unet_2"].model_copy(update={"path": "onnx/absent.onnx"})
    graphs = {"onnx": {**split.manifest.graphs["onnx"], "unet_2": broken}}
    faulty = Bundle(split.folder, split.manifest.model_copy(update={"graphs": graphs}))
    low = OpenEngines()
    with pytest.raises(ProofError, match="absent.onnx") as caught:
        list(generate(faulty, PROMPT, **OPTIONS, low_memory=True, opener=low))
    assert low.opened() == ["text_encoder", "unet"] and low.count() == 0, caught.value


def test_a_drawing_that_is_given_up_leaves_no_engine_open(split: Bundle) -> None:
    low = OpenEngines()
    drafts = generate(split, PROMPT, **OPTIONS, low_memory=True, opener=low)
    next(drafts)
    assert low.count() == 1
    drafts.close()  # type: ignore[attr-defined]  # it is a generator
    assert low.count() == 0


def test_a_graph_that_is_called_again_in_a_row_stays_open(whole: Bundle) -> None:
    counts = OpenEngines()
    opener = one_at_a_time(counts)
    runner = opener(whole, "vae_decoder", "onnx")
    latents = {"latent_sample": np.zeros((1, 4, 16, 16), np.float32)}
    first, again = runner(latents), runner(latents)
    assert counts.opened() == ["vae_decoder"] and np.array_equal(first["sample"], again["sample"])
    assert runner.spec == whole.manifest.graphs["onnx"]["vae_decoder"].spec


def test_memory_is_returned_before_a_graph_is_opened(split: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    low = OpenEngines()
    counts: list[int] = []
    monkeypatch.setattr(module, "return_freed_memory", lambda: counts.append(low.count()))
    draw(split, PROMPT, **OPTIONS, low_memory=True, opener=low)
    assert counts == [0] * len(low.opened())


@pytest.mark.skipif(not STATUS.exists(), reason="memory is read from /proc")
def test_freed_memory_is_returned_to_the_system() -> None:
    def held() -> int:
        return int(STATUS.read_text().split("RssAnon:")[1].split()[0]) * 1024

    blocks = [b"\x01" * 100_000 for _ in range(1000)]
    keep, before = blocks[-1], held()
    del blocks
    return_freed_memory()
    assert before - held() > 80e6 and len(keep) == 100_000


def test_the_command_draws_the_same_file(tiny_bundle: Path, tmp_path: Path) -> None:
    for file, *options in (("usual.png",), ("low.png", "--low-memory")):
        done = call("generate", tiny_bundle, PROMPT, "--steps", "2", "-o", tmp_path / file, *options)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "usual.png").read_bytes() == (tmp_path / "low.png").read_bytes()
