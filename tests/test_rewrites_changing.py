"""A rewrite that changes the model: what the gate then asks, and that it asks nothing less of any other export."""

from dataclasses import replace
from math import inf
from pathlib import Path

import pytest

from pocketdiffusion.build import export_original
from pocketdiffusion.export.original import Original, open_model, record_original
from pocketdiffusion.export.reference.torch_runner import open_rewritten
from pocketdiffusion.export.rewrites import changed_floor_db
from pocketdiffusion.export.targets import Artifact, load_target
from pocketdiffusion.runtime.bundle.bundle import Bundle, open_bundle
from pocketdiffusion.runtime.bundle.verdicts import Kind
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.verify.check import Check, Scope, Tolerance
from pocketdiffusion.runtime.verify.gate import judge, judge_graph
from pocketdiffusion.runtime.verify.recording import first_middle_last_steps
from pocketdiffusion.runtime.verify.tolerances import FLOORS_DB, Measured, floor_db

CHANGING = ("fused_attention", "quick_gelu", "tanh_gelu")


@pytest.fixture(scope="module")
def original(tiny_checkpoint: Path) -> Original:
    return record_original(*open_model(str(tiny_checkpoint)))


@pytest.fixture(scope="module")
def changed(original: Original, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny checkpoint as ONNX in float32, with GELU by tanh."""
    target = replace(load_target("generic"), artifacts=(Artifact("onnx", "std", "fp32", "cpu", CHANGING),))
    return export_original(original, target, tmp_path_factory.mktemp("changed") / "bundle")


def test_floors_are_lowered_to_what_the_change_costs_and_no_further() -> None:
    single, half, changed = Scope(), Scope(storage="float16"), Measured(changed_db=90.0)
    assert floor_db(single, changed) == 84
    assert floor_db(half, changed) == 65
    assert floor_db(single, Measured(changed_db=inf)) == FLOORS_DB["float32", "float32"]
    assert floor_db(half, replace(changed, rounding_db=88.0)) == 82  # rounding was measured with the change in it


@pytest.mark.slow
def test_the_verdicts_say_so(changed: Bundle) -> None:
    """The text encoder and the VAE have no GELU: nothing is lowered there."""
    verdicts = open_bundle(changed.folder).manifest.verdicts
    by_rung = {(v.subject, v.rung): v for v in verdicts}
    cost = by_rung["unet.out_sample", Kind.CHANGED.value]
    assert cost.format == "onnx" and changed_floor_db(CHANGING) == cost.floor_db < cost.psnr_db < 105
    assert by_rung["unet.out_sample", Kind.SAME_WEIGHTS.value].floor_db == 105  # beside the changed module
    assert by_rung["unet.out_sample", "fp32"].floor_db == pytest.approx(cost.psnr_db - 6)  # beside the original
    assert len(by_rung) == len(verdicts), "two verdicts have one name"
    assert by_rung["unet.out_sample", "rewrites"].floor_db == 105
    for v in verdicts:
        assert v.floor_db >= 105 or v.subject in ("unet.out_sample", "pictures.median", "pictures.minimum"), v.subject


@pytest.mark.slow
def test_the_report_says_so(changed: Bundle) -> None:
    page = (changed.folder / "report/report.html").read_text(encoding="utf-8")
    assert page.count("tanh_gelu changes the model: GELU is its tanh approximation") == 1
    assert "all rewrites" in page


@pytest.mark.slow
def test_no_other_format_is_judged_by_it(changed: Bundle, original: Original) -> None:
    """The same artifacts, had another format been changed: they fail."""
    manifest = changed.manifest
    moved = tuple(replace(v, format="tflite") if v.kind == Kind.CHANGED else v for v in manifest.verdicts)
    other = Bundle(changed.folder, manifest.model_copy(update={"verdicts": moved}))
    failed = {r.subject for r in judge(other, original.trajectories[:1])[0] if not r.passed}
    assert failed == {"unet.out_sample"}


def test_a_change_that_the_artifact_does_not_have_is_caught(original: Original) -> None:
    """And so is one that it has and does not say: each is compared at float32's own floor."""
    unet = next(part for part in original.parts if part.spec.name == "unet")
    few = [first_middle_last_steps(trajectory) for trajectory in original.trajectories[:1]]
    exact, by_tanh = open_rewritten(unet, ("fused_attention",)), open_rewritten(unet, CHANGING)
    for runner, reference in ((exact, by_tanh), (by_tanh, None)):
        check = Check(Kind.ARTIFACT, Tolerance(105.0), Scope("onnx", recipe="fp32"), reference)
        (report,) = judge_graph(check, runner, few)
        assert not report.passed and report.floor_db == 105


@pytest.mark.slow
def test_a_change_that_costs_too_much_fails(
    original: Original, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pocketdiffusion.export.rewrites import tanh_gelu

    monkeypatch.setattr(tanh_gelu, "FLOOR_DB", 104.0)
    target = replace(load_target("generic"), artifacts=(Artifact("onnx", "std", "fp32", "cpu", CHANGING),))
    with pytest.raises(ProofError, match=r"unet.out_sample \(changed\).*at least 104 dB"):
        export_original(original, target, tmp_path / "out")
