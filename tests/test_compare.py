"""Two that draw the same prompts: a bundle beside another, beside a failed one, beside the original."""

import json
import shutil
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.command import call, refusal
from support.family_cases import Case as Configuration
from support.family_cases import Model, edit_json
from support.model_files import scale_weight
from support.recordings import changed
from test_report import Page

from pocketdiffusion.compare import Compared, compare_two
from pocketdiffusion.reports.compare import check_report_files
from pocketdiffusion.runtime.bundle.bundle import Bundle, open_bundle
from pocketdiffusion.runtime.bundle.sealing import seal
from pocketdiffusion.runtime.engines import open_graph
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.memory import own_peak_bytes
from pocketdiffusion.runtime.pipeline import draw
from pocketdiffusion.runtime.progress import Progress
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.verify.check import Scope
from pocketdiffusion.runtime.verify.compare import BundleCandidate, compare, step_ratio
from pocketdiffusion.runtime.verify.golden import read_golden
from pocketdiffusion.runtime.verify.peak import peak_mb
from pocketdiffusion.runtime.verify.pictures import compare_picture, judge_pictures
from pocketdiffusion.runtime.verify.recorded import record_bundle
from pocketdiffusion.runtime.verify.recording import ARRAYS, Case, Trajectory, recorded_once, recorded_steps


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)


@pytest.fixture(scope="module")
def recorded(bundle: Bundle) -> Trajectory:
    return record_bundle(bundle, "red apple", negative_prompt="blurry", seed=3, steps=4, guidance=5.0)


def test_a_bundle_records_what_the_original_does(bundle: Bundle) -> None:
    golden = read_golden(bundle)[1]
    facts = {name: getattr(golden, name) for name in ("negative_prompt", "seed", "steps", "guidance", "sampler")}
    own = record_bundle(bundle, golden.prompt, **facts)
    pairs = [(name, getattr(golden, name), getattr(own, name)) for name in ARRAYS]
    assert golden.calls.keys() == own.calls.keys()
    for graph, cases in golden.calls.items():
        for one, other in zip(cases, own.calls[graph], strict=True):
            assert (one.half, one.step, one.inputs.keys()) == (other.half, other.step, other.inputs.keys())
            pairs += [(f"{graph}.{name}", array, other.inputs[name]) for name, array in one.inputs.items()]
            pairs += [(f"{graph}.{name}", array, other.outputs[name]) for name, array in one.outputs.items()]
    for name, wanted, found in pairs:
        assert wanted.shape == found.shape and wanted.dtype == found.dtype, name
        if name != "picture":
            atol = 1e-3 if name != "vae_encoder.sample" else 1e-2  # a pixel may be one level off
            np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=atol, err_msg=name)


def test_a_bundle_is_equal_to_itself(bundle: Bundle, recorded: Trajectory) -> None:
    found = compare([recorded], BundleCandidate(bundle, "onnx"))
    assert found.median_db == found.lowest_db == inf
    assert all(report.psnr_db == inf for report in found.graphs) and len(found.graphs) == 5
    assert [len(row) for row in found.guided_db] == [len(recorded_steps(recorded))]
    assert {db for row in found.guided_db for db in row} == {inf}
    picture = draw(bundle, "red apple", negative_prompt="blurry", seed=3, steps=4, guidance=5.0)
    np.testing.assert_array_equal(recorded.picture, picture)


def test_guidance_amplifies_what_the_halves_differ_by(bundle: Bundle, recorded: Trajectory) -> None:
    """One half a little off: the guided prediction is off by more."""
    off = changed(recorded, "unet", "out_sample", lambda case, x: x + np.float32(1e-3 * (case.half == "positive")))
    found = compare([off], BundleCandidate(bundle, "onnx"))
    (unet,) = [report for report in found.graphs if report.subject == "unet.out_sample"]
    assert unet.max_abs == pytest.approx(1e-3, rel=1e-2)
    assert all(0 < unet.psnr_db - db < 25 for db in found.guided_db[0])


def test_a_half_alone_is_not_recorded(bundle: Bundle) -> None:
    with pytest.raises(UserError, match="does not use the negative prompt"):
        record_bundle(bundle, "red apple", guidance=1.0)


def compared(a: Path, b: Path, progress: Progress = lambda line: None, **changed: Any) -> Compared:
    facts: Any = {"prompts": ["red apple"], "seed": 0, "steps": 2, "guidance": 5.0, "format": None, "budget": None}
    return compare_two(str(a), str(b), **{**facts, **changed}, revision=None, token=None, progress=progress)


@pytest.mark.parametrize("side", [0, 1])
def test_two_of_other_widths_are_refused_before_one_draws(
    side: int, make: Callable[..., Model], tiny_bundle: Path
) -> None:
    """Texts of 16 numbers a token, not 32, as Stable Diffusion 2 beside 1."""
    other, said = make(Configuration()).folder, list[str]()
    a, b = (tiny_bundle, other) if side else (other, tiny_bundle)
    with pytest.raises(UserError, match=r"text_encoder.last_hidden_state is \[77, .*: only models with equal shapes"):
        compared(a, b, said.append)
    assert said and not [line for line in said if "drawing" in line or "recording" in line]


def test_a_model_takes_the_size_of_the_bundle_beside_it(
    tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    """Its own pictures are smaller, as of a bundle that was exported with --size."""
    model = shutil.copytree(tiny_checkpoint, tmp_path / "model")
    edit_json(model / "unet/config.json", sample_size=8)
    found = compared(model, tiny_bundle)
    assert found.difference.drawn[0].picture.shape == (32, 32, 3) and found.difference.lowest_db > 50


def test_the_ratio_of_times_is_about_one_for_the_same(bundle: Bundle, recorded: Trajectory) -> None:
    unet = open_graph(bundle, "unet", "onnx")
    assert 0.2 < step_ratio(unet, unet, recorded) < 5


def test_the_command_says_it_in_a_table_a_page_and_numbers(tiny_bundle: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("red apple\n\nblue heart\n")
    page = tmp_path / "report.html"
    done = call("compare", tiny_bundle, tiny_bundle, "--prompts", prompts, "--steps", "2", "-o", page)
    assert done.returncode == 0, done.stderr
    assert "blue heart" in done.stdout and "unet.out_sample" in done.stdout
    first = next(line for line in done.stdout.splitlines() if not line.startswith((" ", "comparing")))
    assert first.startswith("All 2 pictures by B (") and first.endswith("; no layer has an error above 1%.")
    assert (
        "the median picture is closer to the reference than the reference's own picture with another seed ("
        in done.stdout
    )
    assert page.read_text(encoding="utf-8").count("one step less (") == 3  # the median, and each picture
    numbers = json.loads(page.with_suffix(".json").read_text())
    assert [p["prompt"] for p in numbers["pictures"]] == ["red apple", "blue heart"]
    assert [p["seed"] for p in numbers["pictures"]] == [0, 1]
    assert numbers["lowest_db"] == "inf" and numbers["a"]["mb"] > 0 and numbers["b"]["peak_mb"] > 50
    assert numbers["blame"] == "" and numbers["answer"] == first
    assert {rung["name"] for rung in numbers["ladder"]} == {"rewrites", "fp32"}
    modules = [layer["module"] for layer in numbers["layers"] if layer["graph"] == "unet"]
    assert "unet.conv_in" in modules and modules[-1] == "unet.conv_out" and len(set(modules)) == len(modules) > 30
    shown = Page(page.read_text(encoding="utf-8"))
    assert shown.elements.count("img") == 6 and shown.elements.count("svg") == 4
    assert all(place.startswith(("data:image/png;base64,", "#")) for place in shown.loaded)


@pytest.mark.slow
def test_the_original_is_one_side_and_a_bound_can_break(
    tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("red apple\n")
    arguments = (tiny_bundle, "--prompts", prompts, "--steps", "2", "--min-psnr", "40")
    assert call("compare", tiny_checkpoint, *arguments).returncode == 0
    other = shutil.copytree(tiny_checkpoint, tmp_path / "other")
    scale_weight(other / "vae/diffusion_pytorch_model.safetensors", "decoder.conv_out.weight", 2)
    broken = call("compare", other, *arguments, "-o", tmp_path / "out.html")
    assert broken.returncode == 1 and "--min-psnr requires 40 dB" in broken.stderr
    assert "--min-psnr requires 40 dB" in (tmp_path / "out.html").read_text()
    graphs = {g["subject"]: g["psnr_db"] for g in json.loads((tmp_path / "out.json").read_text())["graphs"]}
    assert graphs["vae_decoder.sample"] < 20 < 100 < graphs["unet.out_sample"]


def test_what_is_not_finite_is_never_near(tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """The UNet overflows float32. Both pictures of two such models are black, and were equal."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("red apple\n")
    endless = shutil.copytree(tiny_checkpoint, tmp_path / "endless")
    scale_weight(endless / "unet/diffusion_pytorch_model.safetensors", "conv_out.weight", 1e38)
    options = ("--prompts", prompts, "--steps", "2")
    both = call("compare", endless, endless, *options, "--min-psnr", "-1000", "-o", tmp_path / "out.html")
    assert both.returncode == 1
    said = f"unet.out_sample is not finite in {endless} and in {endless}, first at [0, "
    assert said in both.stderr and said in both.stdout and "'red apple', step" in both.stderr
    assert " of 'red apple': not finite in" in both.stdout and "is not finite.\n" in both.stdout
    numbers = json.loads((tmp_path / "out.json").read_text())
    assert numbers["lowest_db"] == "-inf" and said in numbers["broken"]
    other = call("compare", tiny_bundle, endless, *options)
    assert other.returncode == 1 and f"of 'red apple': not finite in {endless}, first at" in other.stderr


@pytest.mark.parametrize(("bad", "named"), [((True, False), "A"), ((False, True), "B"), ((True, True), "AB")])
def test_a_weight_that_is_not_finite_is_never_near(
    bad: tuple[bool, bool], named: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Told before anything is drawn, with the side, the file, the tensor and the index; still a failed proof."""
    broken = shutil.copytree(tiny_checkpoint, tmp_path / "broken")
    scale_weight(broken / "unet/diffusion_pytorch_model.safetensors", "conv_out.weight", np.nan)
    done = call("compare", *(broken if side else tiny_checkpoint for side in bad), "--min-psnr", "40")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    for side in named:
        assert f"{side} cannot be compared, because a weight is NaN or infinite" in done.stderr
    assert done.stderr.count("a weight is NaN or infinite") == len(named)
    assert f"{broken}/unet" in done.stderr and "conv_out.weight is nan at index [0, 0, 0, 0]" in done.stderr
    assert "drawing" not in done.stdout


def test_a_picture_that_is_not_finite_is_not_judged_by_its_8_bits(bundle: Bundle, recorded: Trajectory) -> None:
    def broken(case: Case, decoded: Array) -> Array:
        decoded[0, 1, 2, 3] = np.nan
        return decoded

    black = changed(recorded, "vae_decoder", "sample", broken)
    latents = [each[None] for each in recorded.latents[1:]]
    for one, other, side in ((black, recorded, "A"), (recorded, black, "B"), (black, black, "A and in B")):
        found = compare_picture("onnx", one, latents, recorded_once(other, "decoded"), recorded.picture)
        assert found.psnr_db == -inf and found.ssim == 0 and found.not_finite is not None
        assert found.not_finite.describe("A", "B") == (
            f"picture of 'red apple': not finite in {side}, first at [0, 1, 2, 3]"
        )
        verdicts = judge_pictures([found], bundle.manifest.graphs["onnx"].values(), Scope("onnx"))
        assert not any(verdict.passed or verdict.finite for verdict in verdicts)
    assert (
        compare_picture("onnx", recorded, latents, recorded_once(recorded, "decoded"), recorded.picture).psnr_db == inf
    )


def test_a_step_that_is_not_finite_is_named(bundle: Bundle, recorded: Trajectory) -> None:
    latents = recorded.latents.copy()
    latents[2, 0, 5, 6] = inf
    found = compare([replace(recorded, latents=latents)], BundleCandidate(bundle, "onnx"))
    (said,) = found.not_finite("one", "other")
    assert said == "latents after step 2 of 'red apple': not finite in one, first at [0, 0, 5, 6]"
    assert found.lowest_db == -inf and found.pictures[0].drift_db[0] > 100


def test_the_numbers_replace_no_other_file(tiny_bundle: Path, tmp_path: Path) -> None:
    """A recipe that search wrote, beside which the report would have its numbers; those of a report they may."""
    numbers = tmp_path / "my.json"
    for other in ('{"name": "mixed", "floors": {}, "schemes": {}}', "[1]", "no JSON"):
        numbers.write_text(other)
        with pytest.raises(UserError, match=f"{numbers} exists and is not a comparison"):
            check_report_files(tmp_path / "my.html")
    said = refusal("compare", tmp_path / "none", tiny_bundle, "-o", tmp_path / "my.html")
    assert f"{numbers} exists and is not a comparison" in said and numbers.read_text() == "no JSON"
    numbers.write_text('{"a": {}, "b": {}, "pictures": [], "graphs": []}')
    check_report_files(tmp_path / "my.html")
    check_report_files(tmp_path / "another.html")


def test_memory_is_that_of_drawing_alone(tiny_bundle: Path, tmp_path: Path) -> None:
    """However much the process has that compares: a child of fork and exec would begin with it in ru_maxrss."""
    other = shutil.copytree(tiny_bundle, tmp_path / "other")
    alone = [peak_mb(folder, "onnx") for folder in (tiny_bundle, other)]
    ballast = np.ones(100_000_000)
    assert own_peak_bytes() > ballast.nbytes
    assert [peak_mb(folder, "onnx") for folder in (tiny_bundle, other)] == pytest.approx(alone, rel=0.1)
    assert 50 < min(alone) and max(alone) < 300


def test_one_recording_is_held_at_a_time(bundle: Bundle) -> None:
    """And what is found is as if all had been: of each output the worst case, with a peak over all prompts."""
    held: list[weakref.ref[Trajectory]] = []

    def draw_each() -> Iterator[Trajectory]:
        for number, prompt in enumerate(("red apple", "blue heart", "green car")):
            assert not [each for each in held if each() is not None]
            own = record_bundle(bundle, prompt, seed=number, steps=2, guidance=5.0)
            off = changed(own, "unet", "out_sample", lambda case, x: x + np.float32(1e-3 * len(case.label)))
            held.append(weakref.ref(off))
            del own
            yield off
            del off

    candidate = BundleCandidate(bundle, "onnx")
    found = compare(draw_each(), candidate)
    assert [each.prompt for each in found.drawn] == ["red apple", "blue heart", "green car"] and len(held) == 3
    (unet,) = [report for report in found.graphs if report.subject == found.subject]
    assert unet.cases == len(unet.case_db) == sum(len(each.calls) for each in found.drawn) == 3 * 3 * 2  # PNDM's three
    assert "blue heart" in unet.worst_case or "green car" in unet.worst_case
    assert unet.psnr_db == min(unet.case_db) and [len(row) for row in found.guided_db] == [3, 3, 3]
    one = compare([record_bundle(bundle, "red apple", steps=2, guidance=5.0)], candidate)
    assert {report.psnr_db for report in one.graphs} == {inf}


@pytest.mark.parametrize(("seed", "count"), [(2**64, 1), (2**64 - 1, 2), (-(2**63) - 1, 1)])
def test_a_seed_out_of_range_is_refused_before_anything_is_drawn(seed: int, count: int, tiny_bundle: Path) -> None:
    said: list[str] = []
    with pytest.raises(UserError, match="is out of range: take one from"):
        compared(tiny_bundle, tiny_bundle, said.append, seed=seed, prompts=["apple"] * count)
    assert not [line for line in said if "drawing" in line]


def test_mistakes_are_one_line(tiny_bundle: Path, tmp_path: Path) -> None:
    assert "--min-psnr nan is not a number" in refusal("compare", tiny_bundle, tiny_bundle, "--min-psnr", "nan")
    assert "guidance inf" in refusal("compare", tmp_path / "none", tiny_bundle, "--guidance", "inf")
    assert "such as out.html" in refusal("compare", tiny_bundle, tiny_bundle, "-o", tmp_path / "out.pdf")
    assert "cannot read the prompts" in refusal("compare", tiny_bundle, tiny_bundle, "--prompts", tmp_path / "none")
    assert "has no tflite" in refusal("compare", tiny_bundle, tiny_bundle, "--format", "tflite")
    assert "give more than 1" in refusal("compare", tiny_bundle, tiny_bundle, "--guidance", "1")


def test_a_failed_bundle_is_compared_too(bundle: Bundle, tmp_path: Path) -> None:
    failed = shutil.copytree(bundle.folder, tmp_path / "failed")
    first, *others = bundle.manifest.verdicts
    bad = replace(first, psnr_db=1.0)
    seal(failed, bundle.manifest.model_copy(update={"verdicts": (bad, *others)}))
    with pytest.raises(ProofError):
        open_bundle(failed)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("red apple\n")
    done = call("compare", bundle.folder, failed, "--prompts", prompts, "--steps", "2")
    assert done.returncode == 0 and "pixel for pixel" in done.stdout, done.stderr
