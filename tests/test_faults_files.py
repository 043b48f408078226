"""One file of each kind and role, changed and sealed as if nothing had happened: who tells, and what nobody tells.

What is in a graph is the matter of test_faults.py."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.forgery import forge, reseal

from pocketdiffusion.runtime.bundle.bundle import Bundle, open_bundle
from pocketdiffusion.runtime.engines import open_graph
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.verify.gate import judge_runner, judge_stages
from pocketdiffusion.runtime.verify.golden import read_golden
from pocketdiffusion.runtime.verify.recording import probe

Fault = Callable[[Path], None]


@pytest.fixture
def folder(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of one's own."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def blamed(bundle: Bundle) -> set[str]:
    """The subjects of all failed verdicts on stages and graphs, by one recorded drawing."""
    trajectories = [probe(read_golden(bundle)[0])]
    found = judge_stages(bundle, read_golden(bundle)[:1])
    for name in bundle.manifest.graphs["onnx"]:
        found += judge_runner(open_graph(bundle, name, "onnx"), trajectories, format="onnx", rung="fp32")
    return {verdict.subject for verdict in found if not verdict.passed}


def pipeline(change: Callable[[dict[str, Any]], None]) -> Fault:
    return lambda folder: forge(folder, "pipeline/onnx.json", change)


def content(path: str, change: Callable[[bytes], bytes]) -> Fault:
    def fault(folder: Path) -> None:
        raw = (folder / path).read_bytes()
        changed = change(raw)
        assert changed != raw
        (folder / path).write_bytes(changed)
        reseal(folder)

    return fault


def swapped_entries(raw: bytes) -> bytes:
    """The ids of two words of the first prompt in each other's place."""
    vocabulary = json.loads(raw)
    vocabulary["red</w>"], vocabulary["apple</w>"] = vocabulary["apple</w>"], vocabulary["red</w>"]
    return json.dumps(vocabulary).encode()


def reversed_merges(raw: bytes) -> bytes:
    header, *pairs = raw.decode().splitlines()
    return "\n".join([header, *reversed(pairs), ""]).encode()


def stage_of(fields: dict[str, Any], name: str) -> dict[str, Any]:
    stage: dict[str, Any] = next(stage for stage in fields["program"]["stages"] if stage["stage"] == name)
    return stage


def exchanged_inputs(fields: dict[str, Any]) -> None:
    inputs = stage_of(fields, "denoise")["calls"][0]["inputs"]
    inputs["sample"], inputs["timestep"] = inputs["timestep"], inputs["sample"]


def unscaled_decoder(fields: dict[str, Any]) -> None:
    stage_of(fields, "decode")["calls"][0]["inputs"]["latent_sample"] = "latents"


def another(path: str) -> Callable[[Path], None]:
    """The next of the recorded arrays or pictures in its place."""

    def fault(folder: Path) -> None:
        shutil.copyfile(folder / path.replace("0", "1", 1), folder / path)
        reseal(folder)

    return fault


def other_number(raw: bytes) -> bytes:
    values = np.frombuffer(raw, "<f4").copy()
    values[len(values) // 3] *= 1.001
    return values.tobytes()


CASE = "golden/case/unet"
TOLD: list[tuple[str, Fault, set[str]]] = [
    ("the VAE's scale", pipeline(lambda f: f["vae"].update(scaling_factor=0.13025)), {"vae_scale"}),
    ("the id of the beginning", pipeline(lambda f: f["tokenizers"][0].update(bos_id=49407)), {"tokenizer"}),
    ("the id of the padding", pipeline(lambda f: f["tokenizers"][0].update(pad_id=0)), {"tokenizer"}),
    ("a number of a step table", content("steps/tables.bin", other_number), {"step_tables"}),
    ("the merges", content("onnx/tokenizer/merges.txt", reversed_merges), {"tokenizer"}),
    ("the vocabulary", content("onnx/tokenizer/vocab.json", swapped_entries), {"tokenizer"}),
    ("weights", content("onnx/unet/model.onnx_data", lambda raw: bytes(len(raw))), {"unet.out_sample"}),
    ("the picture of the original", another("golden/0.png"), {"golden_cases"}),
    ("a golden case", content(f"{CASE}/outputs/out_sample.bin", lambda raw: raw[::-1]), {"golden_cases"}),
    ("recorded noise", another("golden/0/noise.bin"), {"noise", "sampler"}),
    (
        "a recorded picture",
        another("golden/0/vae_decoder.out.sample.bin"),
        {"image", "vae_decoder.sample", "golden_cases"},
    ),
]


@pytest.mark.parametrize(("fault", "expected"), [pytest.param(f, who, id=what) for what, f, who in TOLD])
def test_a_changed_file_is_told(folder: Path, fault: Fault, expected: set[str]) -> None:
    before = open_bundle(folder).manifest
    fault(folder)
    bundle = open_bundle(folder)
    assert bundle.manifest.bundle_id != before.bundle_id
    assert blamed(bundle) == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields["golden"][0].update(prompt="green apple"),
        lambda fields: fields["graphs"]["onnx"].pop("unet"),
        lambda fields: fields["verdicts"].clear(),
    ],
)
def test_another_proof_contradicts_the_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    forge(folder, "proof.json", change)
    with pytest.raises(ProofError, match="contradicts itself"):
        open_bundle(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (exchanged_inputs, "denoise: unet.sample has 4 axes, and timestep has 1"),
        (unscaled_decoder, "decode: vae_decoder.latent_sample is given 'latents'"),
    ],
)
def test_a_program_with_one_value_for_another_does_not_open(
    folder: Path, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    pipeline(change)(folder)
    with pytest.raises(UserError, match=said):
        open_bundle(folder)


UNTOLD: list[tuple[str, Fault, str]] = [
    ("defaults", pipeline(lambda f: f["defaults"].update(steps=3)), "runtime bundle"),
    ("the preview", pipeline(lambda f: f["preview"].update(bias=[0.0, 0.0, 0.0])), "runtime bundle"),
    ("the README", content("README.md", lambda raw: raw + b"x"), "runtime bundle"),
    ("a licence", content("licences/CLIP.txt", lambda raw: raw + b"x"), "runtime bundle"),
    ("optimum's index", content("onnx/model_index.json", lambda raw: raw + b" "), "bundle"),
    ("the report", content("report/report.html", lambda raw: raw + b" "), ""),
]


@pytest.mark.parametrize(("fault", "ids"), [pytest.param(f, ids, id=what) for what, f, ids in UNTOLD])
def test_what_nobody_tells(folder: Path, fault: Fault, ids: str) -> None:
    """What no picture depends on, once it is sealed again: the ids alone say that it is another bundle."""
    before = open_bundle(folder).manifest
    fault(folder)
    bundle = open_bundle(folder)
    after = bundle.manifest
    assert (after.runtime_id != before.runtime_id, after.bundle_id != before.bundle_id) == (
        "runtime" in ids,
        "bundle" in ids,
    )
    assert {v.subject for v in judge_stages(bundle, read_golden(bundle)[:1]) if not v.passed} == set()
