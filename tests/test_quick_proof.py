"""A quick proof has fewer pictures and steps than a full one, the same kinds of checks, and says that it is quick."""

from pathlib import Path
from shutil import copytree

import pytest
from support.command import call
from support.forgery import forge

from pocketdiffusion.build import export
from pocketdiffusion.export.reference.requests import PROOFS
from pocketdiffusion.runtime.bundle.bundle import Bundle, open_bundle
from pocketdiffusion.runtime.verify.contradictions import FULL_PICTURES
from pocketdiffusion.runtime.verify.controls import SEED


@pytest.fixture(scope="module")
def quick(micro_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("quick") / "bundle"
    done = call("export", micro_checkpoint, "--target", "pixel-8", "--proof", "quick", "-o", out)
    assert done.returncode == 0, done.stderr
    return open_bundle(out)


def test_the_bundle_says_so(quick: Bundle) -> None:
    (golden,) = quick.manifest.golden
    assert quick.manifest.proof_kind == "quick"
    assert golden.steps == 3 and golden.controls.keys() == {SEED} and golden.negative_prompt
    done = call("verify", quick.folder)
    assert done.returncode == 0 and done.stdout.splitlines()[-1].endswith("checks of a quick proof")
    page = (quick.folder / "report/report.html").read_text(encoding="utf-8")
    assert "<dt>PSNR of the picture<dd>" in page and "median; minimum" not in page


def test_against_the_model(quick: Bundle, micro_checkpoint: Path) -> None:
    done = call("verify", quick.folder, "--against", micro_checkpoint)
    assert done.returncode == 0, done.stderr


def test_a_full_proof_has_all_of_its_checks(quick: Bundle, micro_checkpoint: Path, tmp_path: Path) -> None:
    full = export(str(micro_checkpoint), "pixel-8", tmp_path / "full").manifest
    judged = {(v.kind, v.subject, v.rung, v.format) for v in quick.manifest.verdicts}
    assert judged and judged == {(v.kind, v.subject, v.rung, v.format) for v in full.verdicts}
    assert all(v.cases > 0 for v in quick.manifest.verdicts)
    assert len(full.golden) == len(PROOFS["full"].requests) == FULL_PICTURES
    assert {request.prompt for request in PROOFS["quick"].requests} <= {golden.prompt for golden in full.golden}
    assert set(PROOFS["quick"].controls) <= set(PROOFS["full"].controls)


def test_lower_rungs_run_two_steps_and_the_shipped_artifact_all(quick: Bundle) -> None:
    cases = {v.rung: v.cases for v in quick.manifest.verdicts if v.subject == "unet.out_sample"}
    assert cases == {"rewrites": 4, "fp32": 4, "rounding": 4, "fp16": 8}  # both halves; PNDM has one call more


def test_a_quick_proof_that_calls_itself_full(quick: Bundle, tmp_path: Path) -> None:
    copytree(quick.folder, tmp_path / "bundle")
    forge(tmp_path / "bundle", "manifest.json", lambda fields: fields["proof"].update(kind="full"))
    done = call("verify", tmp_path / "bundle")
    assert done.returncode == 1 and "proof.kind is full" in done.stderr and len(done.stderr.splitlines()) == 1


def test_the_plan_of_a_quick_export_is_shorter() -> None:
    def steps(*options: str) -> str:
        done = call("export", "emoji", "--target", "pixel-8", "--plan", *options)
        return next(line for line in done.stdout.splitlines() if "denoising steps" in line)

    assert steps() == "for the checks, the export draws 16 pictures with the original: 156 denoising steps in all"
    assert (
        steps("--proof", "quick")
        == "for the checks, the export draws 2 pictures with the original: 6 denoising steps in all"
    )
