"""What an app ships: the runtime part of a bundle draws by itself, keeps its ids, and says what it does not have."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from support.command import call, refusal
from support.forgery import Change, forge, reseal
from support.sample_bundle import verdict, write_sample

from pocketdiffusion.runtime.bundle import sealing
from pocketdiffusion.runtime.bundle.arrays import read_array
from pocketdiffusion.runtime.bundle.bundle import open_bundle, open_unproven, require_proof
from pocketdiffusion.runtime.bundle.file_table import OPTIONAL, sha256_of
from pocketdiffusion.runtime.bundle.manifest import Manifest
from pocketdiffusion.runtime.bundle.runtime_part import copy_runtime_part
from pocketdiffusion.runtime.bundle.sealing import prepare, seal, seal_judged
from pocketdiffusion.runtime.engines import open_graph
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.pipeline import draw
from pocketdiffusion.runtime.verify.contradictions import check_contradictions
from pocketdiffusion.runtime.verify.golden import read_golden
from pocketdiffusion.runtime.verify.metrics import psnr_db
from pocketdiffusion.runtime.verify.self_test import judge_runtime_part
from pocketdiffusion.runtime.verify.stages import judge_stages


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Complete but small; nothing in it can be run."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    seal(folder, write_sample(folder))
    return folder


@pytest.fixture(scope="module")
def part(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runtime part of a bundle that draws. Read it, never write to it."""
    out = tmp_path_factory.mktemp("part") / "out"
    copy_runtime_part(tiny_bundle, out)
    return out


def of_role(manifest: Manifest, role: str) -> list[str]:
    return sorted(path for path, entry in manifest.files.items() if entry.role == role)


def remove(folder: Path, *paths: str) -> None:
    """The files, and the folders that are empty without them."""
    for path in paths:
        (folder / path).unlink()
        for parent in Path(path).parents:
            if parent != Path() and not any((folder / parent).iterdir()):
                (folder / parent).rmdir()


def test_the_runtime_part_keeps_manifest_and_ids(bundle: Path, tmp_path: Path) -> None:
    whole = open_bundle(bundle).manifest
    copied = copy_runtime_part(bundle, tmp_path / "part").manifest
    files = [path.relative_to(tmp_path / "part").as_posix() for path in (tmp_path / "part").rglob("*")]
    found = {path for path in files if (tmp_path / "part" / path).is_file()}
    assert found == {*of_role(whole, "runtime"), "manifest.json", "manifest.sha256"}
    assert (tmp_path / "part/manifest.json").read_bytes() == (bundle / "manifest.json").read_bytes()
    assert (copied.runtime_id, copied.bundle_id) == (whole.runtime_id, whole.bundle_id)
    assert not copied.has_proof and not copied.verdicts and not copied.golden and copied.picture == whole.picture
    assert copied.graphs["onnx"]["unet"].spec == whole.graphs["onnx"]["unet"].spec


@pytest.mark.parametrize("role", OPTIONAL)
def test_of_the_other_roles_all_files_are_there_or_none(bundle: Path, role: str) -> None:
    paths = of_role(open_bundle(bundle).manifest, role)
    assert len(paths) > 1
    remove(bundle, paths[0])
    with pytest.raises(ProofError, match=f"does not match its manifest: '{paths[0]}' missing"):
        open_bundle(bundle)
    remove(bundle, *paths[1:])
    assert open_bundle(bundle).manifest.has_proof == (role != "proof")


def test_no_file_of_the_role_runtime_may_be_missing(bundle: Path) -> None:
    for path in of_role(open_bundle(bundle).manifest, "runtime"):
        (bundle / path).rename(bundle.parent / "away")
        with pytest.raises(ProofError, match="missing|is empty"):
            open_bundle(bundle)
        (bundle.parent / "away").rename(bundle / path)


def test_the_summary_counts_where_the_proof_is_not_installed(bundle: Path, tmp_path: Path) -> None:
    proven = open_bundle(bundle).manifest
    bad = verdict("unet.out_sample", psnr_db=41.26)
    failed = seal(bundle, proven.model_copy(update={"verdicts": (*proven.verdicts, bad)}))
    assert not failed.proof.passed and failed.proof.worst is not None
    assert (failed.proof.worst.subject, round(failed.proof.worst.margin_db or 0, 2)) == ("unet.out_sample", -23.74)
    with pytest.raises(ProofError):
        copy_runtime_part(bundle, tmp_path / "part")
    remove(bundle, *of_role(failed, "proof"))
    assert not open_unproven(bundle).manifest.has_proof
    with pytest.raises(ProofError, match=r"failed its proof according to its manifest \(worst: unet.out_sample"):
        open_bundle(bundle)


def test_a_summary_that_contradicts_the_proof_is_refused(bundle: Path) -> None:
    """As of a failed export whose manifest was mended by hand."""
    proven = open_bundle(bundle).manifest
    bad = verdict("unet.out_sample", psnr_db=41.26)
    seal(bundle, proven.model_copy(update={"verdicts": (*proven.verdicts, bad)}))
    forge(bundle, "manifest.json", lambda fields: fields["proof"].update(passed=True))
    with pytest.raises(ProofError, match=r"the summary of the proof is not what proof.json says"):
        open_unproven(bundle)


def test_a_verdict_without_finite_numbers_is_summed_up_in_plain_json(bundle: Path) -> None:
    proven = open_bundle(bundle).manifest
    broken = verdict("unet", psnr_db=float("-inf"))
    worst = seal(bundle, proven.model_copy(update={"verdicts": (*proven.verdicts, broken)})).proof.worst
    assert worst is not None and (worst.subject, worst.psnr_db, worst.floor_db) == ("unet", None, 65.0)
    only = verdict("unet")  # equal to the last bit: there is no worst number
    assert seal(bundle, proven.model_copy(update={"verdicts": (only,)})).proof.worst is not None


def test_a_runtime_part_is_not_sealed_again(bundle: Path, tmp_path: Path) -> None:
    copied = copy_runtime_part(bundle, tmp_path / "part")
    with pytest.raises(ValueError, match="proof part is not installed"):
        seal(copied.folder, copied.manifest)


def test_places_for_a_runtime_part(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is the bundle itself"):
        copy_runtime_part(bundle, bundle)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").touch()
    with pytest.raises(UserError, match="exists and is not a folder that an export wrote"):
        copy_runtime_part(bundle, tmp_path / "mine")
    (bundle / "tokenizer/merges.txt").write_text("damaged")
    with pytest.raises(ProofError, match="merges.txt is corrupt"):
        copy_runtime_part(bundle, tmp_path / "part")
    assert not (tmp_path / "part").exists()


def test_a_file_that_changes_between_proof_and_seal_is_named(bundle: Path) -> None:
    manifest = open_bundle(bundle).manifest
    unsealed = prepare(bundle, manifest)
    verdicts = [*manifest.verdicts, verdict("noise", 150.0)]
    (bundle / "report/report.json").write_text("later")
    assert seal_judged(unsealed, verdicts).verdicts[-1].subject == "noise"
    assert open_bundle(bundle).manifest.verdicts == tuple(verdicts)
    for path in ("tokenizer/merges.txt", "golden/latents.bin", "onnx/model_index.json"):
        raw, times = (bundle / path).read_bytes(), (bundle / path).stat()
        (bundle / path).write_bytes(raw[:-1] + b"x")  # as long, and as old as it was
        os.utime(bundle / path, ns=(times.st_atime_ns, times.st_mtime_ns))
        with pytest.raises(ProofError, match=f"{path} changed between the proof and the seal"):
            seal_judged(unsealed, verdicts)
        (bundle / path).write_bytes(raw)
    (bundle / "golden/more.bin").write_bytes(b"new")
    with pytest.raises(ProofError, match="golden/more.bin changed"):
        seal_judged(unsealed, verdicts)


def test_a_file_is_hashed_once(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for one that was written a moment before, which could change again unseen."""
    files = [path for path in bundle.rglob("*") if path.is_file()]
    for path in files:
        os.utime(path, (1e9, 1e9))
    hashed: list[str] = []

    def noted(path: Path) -> str:
        hashed.append(path.relative_to(bundle).as_posix())
        return sha256_of(path)

    monkeypatch.setattr(sealing, "sha256_of", noted)
    monkeypatch.setattr(sealing, "_SETTLED_NS", -(10**18))
    manifest = open_bundle(bundle).manifest
    unsealed = prepare(bundle, manifest)
    assert sorted(hashed) == sorted(manifest.files)
    hashed.clear()
    seal_judged(unsealed, manifest.verdicts)
    assert hashed == ["proof.json"]
    monkeypatch.setattr(sealing, "_SETTLED_NS", 10**18)
    young = prepare(bundle, manifest)
    hashed.clear()
    seal_judged(young, manifest.verdicts)
    assert sorted(hashed) == sorted(manifest.files)


# On a bundle that draws.


def test_the_runtime_part_draws_the_same_picture(tiny_bundle: Path, part: Path) -> None:
    whole, alone = (draw(open_bundle(folder), "red apple", steps=2, seed=7) for folder in (tiny_bundle, part))
    np.testing.assert_array_equal(whole, alone)


def test_the_runtime_part_says_what_it_lacks(tiny_bundle: Path, part: Path) -> None:
    with pytest.raises(UserError, match="proof part not installed"):
        require_proof(open_bundle(part))
    require_proof(open_bundle(tiny_bundle))
    assert "proof part not installed" in refusal("compare", part, tiny_bundle)
    shown = call("inspect", part)
    assert shown.returncode == 0 and "proof part not installed" in " ".join(shown.stdout.split())
    assert "FAILED" not in shown.stdout


def test_verify_judges_what_the_runtime_part_holds(part: Path) -> None:
    done = call("verify", part)
    said = " ".join(done.stdout.split())
    assert done.returncode == 0, done.stderr
    assert "passed all 53 checks on its runtime part" in said and "45 of 45 conformance vectors" in said
    assert "the proof part is not installed, so these were not checked: the recorded drawings" in done.stderr
    for subject in ("picture", "characters", "step_tables", "text_encoder.last_hidden_state", "unet.out_sample"):
        assert f" {subject} " in said


@pytest.mark.parametrize(
    ("path", "subject"),
    [
        ("onnx/unet/model.onnx_data", "unet.out_sample"),
        ("golden/case/vae_encoder/outputs/latent_parameters.bin", "vae_encoder.latent_parameters"),
        ("golden/0.png", "picture"),
        ("tokenizer/characters.json", "characters"),
    ],
)
def test_verify_names_what_is_wrong_in_a_runtime_part(part: Path, tmp_path: Path, path: str, subject: str) -> None:
    """By the numbers alone: sealed again, as if nothing had happened."""
    folder = shutil.copytree(part, tmp_path / "part")
    if path == "golden/0.png":
        with Image.open(folder / path) as picture:
            ImageOps.invert(picture).save(folder / path)
    else:
        raw = (folder / path).read_bytes()
        (folder / path).write_bytes(raw[len(raw) // 2 :] + raw[: len(raw) // 2])
    reseal(folder)
    failed = {verdict.subject for verdict in judge_runtime_part(open_bundle(folder)) if not verdict.passed}
    assert failed - {"picture"} == {subject} - {"picture"} and ("picture" in failed) >= (subject == "picture")


@pytest.mark.parametrize(
    ("path", "change", "said"),
    [
        ("manifest.json", lambda f: f.update(picture=None), "manifest.json: picture is null"),
        (
            "pipeline/onnx.json",
            lambda f: f["steps"].update(default_sampler="ddim"),
            "default_sampler is ddim, and the original drew by pndm",
        ),
        (
            "manifest.json",
            lambda f: f["golden"]["unet"]["inputs"]["sample"].update(dtype="int32"),
            "golden.unet.inputs.sample is int32",
        ),
    ],
)
def test_verify_names_a_contradiction_in_a_runtime_part(
    part: Path, tmp_path: Path, path: str, change: Change, said: str
) -> None:
    folder = shutil.copytree(part, tmp_path / "part")
    if path == "manifest.json":
        reseal(folder, change)
    else:
        forge(folder, path, change)
    with pytest.raises(ProofError, match=said):
        check_contradictions(open_bundle(folder))


def test_verify_of_a_damaged_runtime_part_exits_with_1(part: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(part, tmp_path / "part")
    forge(folder, "pipeline/onnx.json", lambda fields: fields["vae"].update(scaling_factor=0.13025))
    done = call("verify", folder)
    assert done.returncode == 1 and "Stable Diffusion 1.5's VAE scale" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_copies_the_runtime_part(tiny_bundle: Path, tmp_path: Path) -> None:
    done = call("runtime-part", tiny_bundle, tmp_path / "part")
    assert done.returncode == 0, done.stderr
    assert open_bundle(tmp_path / "part").manifest.runtime_id[:16] in done.stdout
    assert "is not a bundle" in refusal("runtime-part", tmp_path, tmp_path / "other")


def test_generate_draws_with_the_bundles_own_defaults(part: Path, tmp_path: Path) -> None:
    done = call("generate", part, "red apple", "-o", tmp_path / "out.png")
    assert done.returncode == 0 and "50 steps, pndm" in done.stdout, done.stderr
    with Image.open(tmp_path / "out.png") as picture:
        assert (picture.info["guidance"], picture.info["steps"]) == ("7.5", "50")


def test_a_golden_case_proves_a_graph_without_the_proof_part(part: Path) -> None:
    bundle = open_bundle(part)
    assert set(bundle.manifest.cases) == set(bundle.manifest.graphs["onnx"])
    for name, case in bundle.manifest.cases.items():
        inputs = {tensor: read_array(part, ref) for tensor, ref in case.inputs.items()}
        given = open_graph(bundle, name, "onnx")(inputs)
        for tensor, ref in case.outputs.items():
            wanted = read_array(part, ref)
            assert psnr_db(wanted, given[tensor], float(np.abs(wanted).max())) > 105, f"{name}.{tensor}"
    picture = bundle.manifest.picture
    assert picture is not None
    original = np.asarray(Image.open(part / picture.image))
    options = {name: getattr(picture, name) for name in ("negative_prompt", "seed", "steps", "sampler", "guidance")}
    ours = draw(bundle, picture.prompt, **options)
    assert psnr_db(original.astype(np.float32), ours.astype(np.float32), 255) > 50


def swap(one: str, other: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        a, b = ((folder / path).read_bytes() for path in (one, other))
        (folder / one).write_bytes(b)
        (folder / other).write_bytes(a)

    return change


@pytest.mark.parametrize(
    "change",
    [
        swap("golden/0.png", "golden/1.png"),
        swap("golden/case/unet/inputs/sample.bin", "golden/case/unet/outputs/out_sample.bin"),
    ],
)
def test_swapped_golden_data_of_the_runtime_part_is_found(
    tiny_bundle: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    """Sealed as if nothing had happened."""
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    change(folder)
    reseal(folder)
    bundle = open_bundle(folder)
    assert {v.subject for v in judge_stages(bundle, read_golden(bundle)) if not v.passed} == {"golden_cases"}
