"""The sentence that reports begin with: proven or not, for which phone, how near, and beside which control."""

from collections.abc import Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_report import Page

from pocketdiffusion.compare import Compared, Side
from pocketdiffusion.export.checks.layer_errors import LayerError
from pocketdiffusion.export.findings import Findings
from pocketdiffusion.export.float16.audit import Audit
from pocketdiffusion.quantize.float16_range import Range, Underflow
from pocketdiffusion.reports.answer import answer_comparison, answer_export
from pocketdiffusion.reports.export import Report, write_report
from pocketdiffusion.runtime.bundle.bundle import open_bundle
from pocketdiffusion.runtime.bundle.manifest import Manifest
from pocketdiffusion.runtime.bundle.verdicts import Verdict
from pocketdiffusion.runtime.verify.compare import Difference, Drawn
from pocketdiffusion.runtime.verify.golden import read_golden
from pocketdiffusion.runtime.verify.pictures import PictureReport
from pocketdiffusion.runtime.verify.skipped import NotRun

CONTROLS = [{"another seed": 12.0, "one step less": 31.5, "the prompt without its last word": inf}]
PICTURE = np.zeros((8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def manifest(tiny_bundle: Path) -> Manifest:
    return open_bundle(tiny_bundle).manifest


def verdict(subject: str, psnr_db: float, floor_db: float = 50.0, **facts: Any) -> Verdict:
    given = {
        "rung": "fp16",
        "format": "onnx",
        "storage": "float16",
        "arithmetic": "float32",
        "peak": 1.0,
        "max_abs": 0.0,
        "worst": (0,),
        "worst_case": "'red apple'",
        "relative": 0.0,
        "finite": True,
        "cases": 4,
    }
    return Verdict(subject=subject, psnr_db=psnr_db, floor_db=floor_db, **{**given, **facts})


def pictures(median: float, minimum: float, format: str = "onnx") -> list[Verdict]:
    facts = {"rung": "pictures", "format": format}
    return [verdict("pictures.median", median, 20, **facts), verdict("pictures.minimum", minimum, 20, **facts)]


def test_passed(manifest: Manifest) -> None:
    answer = answer_export(manifest, [*pictures(54.25, 48.0), verdict("unet.out_sample", 70)], CONTROLS)
    assert answer.state == "passed" and answer.sentence == (
        f"Proven for {manifest.target.title}: the median of 4 pictures by the onnx files agrees with the original "
        f"({manifest.model.name}) at 54.2 dB PSNR (minimum 48.0 dB), closer than the closest control picture, the "
        "original drawn with one step less (31.5 dB); all 3 checks passed."
    )


def test_the_furthest_of_several_formats_is_named(manifest: Manifest) -> None:
    answer = answer_export(manifest, [*pictures(54, 48), *pictures(30, 28, "tflite")], CONTROLS)
    assert "by the tflite files agrees" in answer.sentence and "the lowest of 2 formats" in answer.sentence
    assert "30.0 dB PSNR (minimum 28.0 dB), not closer than the closest control picture" in answer.sentence


def test_equal_pictures_need_no_control(manifest: Manifest) -> None:
    answer = answer_export(manifest, pictures(inf, inf), CONTROLS)
    assert f"all 4 pictures by the onnx files are equal to the original ({manifest.model.name}), pixel for pixel" in (
        answer.sentence
    )


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"psnr_db": 40.3, "floor_db": 65.0}, "onnx unet.out_sample (fp16) with 40.3 dB (floor 65.0 dB)"),
        ({"psnr_db": 90.0, "max_abs": 7.0}, "onnx unet.out_sample (fp16) with a largest error of 7 (limit "),
        ({"psnr_db": -inf, "finite": False}, "onnx unet.out_sample (fp16), which is not finite or has another shape"),
    ],
)
def test_failed(facts: dict[str, Any], told: str, manifest: Manifest) -> None:
    bad = verdict("unet.out_sample", **facts)
    answer = answer_export(manifest, [*pictures(12, 10), bad], CONTROLS)
    assert answer.state == "failed"
    assert answer.sentence.startswith(f"Not proven for {manifest.target.title}: ")
    assert f"checks failed, first {told}" in answer.sentence and "at 12.0 dB PSNR" in answer.sentence


def test_lossy(manifest: Manifest) -> None:
    unet = manifest.graphs["onnx"]["unet"].model_copy(update={"floor_db": 20.0, "recipe": "palette6"})
    lossy = manifest.model_copy(update={"graphs": {"onnx": {**manifest.graphs["onnx"], "unet": unet}}})
    answer = answer_export(lossy, pictures(33, 30), CONTROLS)
    assert answer.state == "passed"
    assert f"Proven for {manifest.target.title} within the floors of the lossy recipe palette6: " in answer.sentence


def test_skipped(manifest: Manifest) -> None:
    """What could not be run is part of the first sentence, never counted as passed."""
    answer = answer_export(manifest, pictures(54, 48), CONTROLS, [NotRun("all", "onnx", "npu", "int16", "not here")])
    assert answer.state == "partly"
    assert answer.sentence.startswith(f"Proven for {manifest.target.title}, but not run on npu (onnx all): ")


def test_nothing_judged(manifest: Manifest) -> None:
    assert answer_export(manifest, [], CONTROLS).sentence.startswith("Not judged: no artifact for ")


def compared(psnr_db: Sequence[float], layers: tuple[LayerError, ...] = ()) -> Compared:
    drawn = tuple(Drawn("apple", n, 2, 5.0, PICTURE, CONTROLS[0], ()) for n in range(len(psnr_db)))
    reports = tuple(PictureReport("onnx", "apple", db, 1.0, (90.0,), PICTURE) for db in psnr_db)
    a, b = Side("emoji, the original", "torch", 0, 0), Side("bundle, onnx fp16", "onnx", 1, 1)
    return Compared((a, b), Difference("onnx", (), (), reports, drawn), None, (), layers, 0.01, "")


def test_a_comparison_says_how_near_and_which_layer() -> None:
    layers = (LayerError("unet", "conv_in", (0.001, 0.02), 0.02, ("step 1", "step 2")),)
    answer = answer_comparison(compared([45.0, 40.0, 50.0], layers))
    assert answer.sentence == (
        "The median of 3 pictures by B (bundle, onnx fp16) agrees with A (emoji, the original) at 45.0 dB PSNR "
        "(minimum 40.0 dB), closer than the closest control picture, A drawn with one step less (31.5 dB); "
        "first above 1%: unet conv_in, step 2."
    )
    assert answer_comparison(compared([inf])).sentence.startswith("The picture by B (bundle, onnx fp16) is equal to A")


def test_a_bound_that_does_not_hold_comes_first() -> None:
    answer = answer_comparison(compared([30.0]), "a picture has 30.0 dB PSNR against A, and --min-psnr requires 40 dB")
    assert answer.state == "failed"
    assert answer.sentence.startswith(
        "Bound not met: a picture has 30.0 dB PSNR against A, and --min-psnr requires 40 dB; "
    )


def touch_artifacts(manifest: Manifest, folder: Path) -> None:
    """Empty files in place of the artifacts, whose names the report reads."""
    for graphs in manifest.graphs.values():
        for graph in graphs.values():
            for file in graph.files:
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).touch()


def test_the_page_shows_the_audit_of_value_ranges(tiny_bundle: Path, tmp_path: Path) -> None:
    """Templates are not read by type checkers: each field that they name must exist."""
    bundle = open_bundle(tiny_bundle)
    touch_artifacts(bundle.manifest, tmp_path)
    audit = Audit(
        "onnx",
        "unet",
        (Range("Conv conv_in", "val_1", 7e4), Range("Mul", "val_2", 12.0)),
        ("conv_in was divided by 4",),
        (Underflow("conv_out.weight", 0.25, 0.1),),
        (verdict("unet.out_sample", 61.0),),
    )
    findings = Findings({"fused_attention": 2}, {}, {"rewrites": 120.0}, 3, 0, 3, {}, audit)
    report = Report(bundle.manifest, [], [], read_golden(bundle), {}, 1.0, {"onnx": {"unet": findings}})
    write_report(tmp_path, report)
    shown = Page((tmp_path / "report/report.html").read_text("utf-8")).shown
    assert "Rescaled: conv_in was divided by 4." in shown and "unet.out_sample 61.0 dB; 2 results." in shown
    assert "Stored with a large error: conv_out.weight, 25 % of its values become zero" in shown


def test_a_failed_export_says_so_first_and_names_no_measurement_that_was_not_made(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    """The page of an export without --report full."""
    bundle = open_bundle(tiny_bundle)
    bad = replace(verdict("unet.out_sample", 40.0, 65.0), rung=bundle.manifest.graphs["onnx"]["unet"].recipe)
    touch_artifacts(bundle.manifest, tmp_path)
    write_report(tmp_path, Report(bundle.manifest, [bad], [], read_golden(bundle), {}, 1.0))
    page = Page((tmp_path / "report/report.html").read_text("utf-8"))
    assert "Not proven for" in page.shown.partition("Checks of the shipped artifacts")[0]
    assert "FAILED" in page.shown and "not measured" in page.shown
    assert not [words for words in ("Rewrites", "ATen", "Activation functions", "Value ranges") if words in page.shown]
