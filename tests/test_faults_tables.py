"""Numbers of step tables and what stages make of them: a wrong one is told from any start."""

import shutil
from pathlib import Path

import pytest
from support.file_faults import Fault, call, number_of, pipeline, sampler, steps, tokenizer, twice
from support.forgery import forge

from pocketdiffusion.runtime.bundle.bundle import open_bundle
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.verify.contradictions import check_contradictions
from pocketdiffusion.runtime.verify.golden import read_golden
from pocketdiffusion.runtime.verify.stages import judge_stages


@pytest.fixture
def folder(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of one's own."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.mark.parametrize(
    "fault",
    [
        number_of("b0", "dpmpp_2m", 50, 10, 0),
        number_of("a", "pndm", 50, 10, 1),
        number_of("b3", "pndm", 37, 9, 3),
        sampler("euler", lambda t: t["init_noise_sigma"].__setitem__(20, 9.0)),
        sampler("dpmpp_2m", lambda t: t["restarts"].pop()),
        sampler("ddim", lambda t: t["columns"].update(a=t["columns"]["b0"], b0=t["columns"]["a"])),
        steps(lambda s: s["scheduler"].update(beta_end=0.02)),
    ],
)
def test_a_number_of_any_start_is_told(folder: Path, fault: Fault) -> None:
    fault(folder)
    bundle = open_bundle(folder)
    check_contradictions(bundle)
    found = {verdict.subject for verdict in judge_stages(bundle, read_golden(bundle)[:1]) if not verdict.passed}
    assert "step_tables" in found


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (lambda folder: forge(folder, "tokenizer/characters.json", lambda f: f["letters"].pop()), {"characters"}),
        (pipeline(lambda f: f["program"].update(absent_negative="zeros")), {"program"}),
        (tokenizer(characters="onnx/tokenizer/vocab.json"), {"characters"}),
        (call("encode_prompt", inputs={"input_ids": "attention_mask/1"}), {"tokenizer"}),
    ],
)
def test_a_stage_tells_it(folder: Path, fault: Fault, expected: set[str]) -> None:
    fault(folder)
    bundle = open_bundle(folder)
    check_contradictions(bundle)
    assert {v.subject for v in judge_stages(bundle, read_golden(bundle)[:1]) if not v.passed} == expected


@pytest.mark.parametrize(
    ("value", "stage", "tensor"),
    [
        ("picture", "encode_image", "sample"),
        ("timestep", "denoise", "timestep"),
        ("scaled_latents", "denoise", "sample"),
        ("decoder_latents", "decode", "latent_sample"),
    ],
)
def test_what_the_program_makes_of_host_values_is_judged(folder: Path, value: str, stage: str, tensor: str) -> None:
    """Beside what the original's graphs were given. decode refuses by itself what is not taken as it is."""
    twice(value, stage, tensor)(folder)
    if stage == "decode":
        with pytest.raises(UserError, match="decode passes decoder_latents to no graph"):
            open_bundle(folder)
        return
    bundle = open_bundle(folder)
    assert "program" in {v.subject for v in judge_stages(bundle, read_golden(bundle)[:1]) if not v.passed}
