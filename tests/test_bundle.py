import hashlib
import json
import os
import random
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.forgery import fit_ids, forge, reseal, write_manifest
from support.sample_bundle import verdict, write_sample, write_snapshot

from pocketdiffusion.runtime.bundle.arrays import read_array
from pocketdiffusion.runtime.bundle.bundle import open_bundle, open_unproven
from pocketdiffusion.runtime.bundle.json_files import decode, encode
from pocketdiffusion.runtime.bundle.layout import Index
from pocketdiffusion.runtime.bundle.sealing import seal
from pocketdiffusion.runtime.errors import PocketDiffusionError, ProofError, UserError


@pytest.fixture
def bundle(sealed: Path, tmp_path: Path) -> Path:
    """A copy of one's own."""
    return Path(shutil.copytree(sealed, tmp_path / "bundle"))


def files_of(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def refused(folder: Path, kind: type[PocketDiffusionError] = ProofError, **options: bool) -> str:
    with pytest.raises(kind) as caught:
        open_unproven(folder, **options)
    with pytest.raises(kind):
        open_bundle(folder, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_sealed_folder_opens(sealed: Path) -> None:
    bundle = open_bundle(sealed)
    assert bundle.folder == sealed
    assert sorted([*bundle.manifest.files, "manifest.json", "manifest.sha256"]) == files_of(sealed)
    ref = bundle.manifest.golden[0].arrays["sample_0"]
    assert read_array(sealed, ref).shape == (1, 3, 16, 16)
    subprocess.run(["sha256sum", "--check", "--strict", "manifest.sha256"], cwd=sealed, check=True)


def test_two_seals_of_one_content_are_equal(tmp_path: Path) -> None:
    manifests = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        manifests.append(seal(folder, write_sample(folder)))
    assert manifests[0] == manifests[1]
    for name in ("manifest.json", "manifest.sha256"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_sealing_again_changes_nothing_but_what_changed(bundle: Path) -> None:
    before = open_bundle(bundle).manifest
    assert seal(bundle, before) == before
    (bundle / "report/report.json").write_text("later")
    later = seal(bundle, before)
    assert later.bundle_id == before.bundle_id and later.files != before.files
    judged = seal(bundle, before.model_copy(update={"verdicts": (*before.verdicts, verdict("noise", 150.0))}))
    assert judged.bundle_id != before.bundle_id and judged.runtime_id == before.runtime_id
    (bundle / "tokenizer/merges.txt").write_text("#version: 0.2\nb a</w>\n")
    assert seal(bundle, before).runtime_id != before.runtime_id
    open_bundle(bundle)


def test_a_flipped_bit_in_any_file_is_named(bundle: Path) -> None:
    chance = random.Random(5)
    for name in files_of(bundle):
        content = (bundle / name).read_bytes()
        for place in {0, len(content) - 1, *(chance.randrange(len(content)) for _ in range(4))}:
            changed = bytearray(content)
            changed[place] ^= 1 << chance.randrange(8)
            (bundle / name).write_bytes(changed)
            assert str(bundle / name) in refused(bundle) or name == "manifest.sha256" in refused(bundle)
        (bundle / name).write_bytes(content)
        open_bundle(bundle)


@pytest.mark.parametrize("name", ["manifest.sha256", "onnx/unet/model.onnx"])
def test_every_bit_of_a_small_file_counts(bundle: Path, name: str) -> None:
    content = (bundle / name).read_bytes()
    for bit in range(8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        (bundle / name).write_bytes(changed)
        with pytest.raises(ProofError, match=name):
            open_bundle(bundle)


def test_without_check_sizes_still_count_and_digests_do_not(bundle: Path) -> None:
    weights = bundle / "onnx/unet/model.onnx_data"
    content = weights.read_bytes()
    weights.write_bytes(content[::-1])
    open_bundle(bundle, check=False)
    weights.write_bytes(content[:-1])
    assert "599 bytes, not 600" in refused(bundle, check=False)
    (bundle / "manifest.json").write_bytes(
        (bundle / "manifest.json").read_bytes().replace(b"apache-2.0", b"apache-2.1")
    )
    assert "manifest.json is corrupt" in refused(bundle, check=False)


def test_missing_files_are_named(bundle: Path) -> None:
    for name in files_of(bundle):
        (bundle / name).rename(bundle.parent / "away")
        if not any((bundle / name).parent.iterdir()):
            (bundle / name).parent.rmdir()
        said = refused(bundle)
        assert name in said and "missing" in said
        (bundle / name).parent.mkdir(exist_ok=True)
        (bundle.parent / "away").rename(bundle / name)
    open_bundle(bundle)


@pytest.mark.parametrize("length", [0, 1, 599, 601])
def test_cut_and_grown_files_are_named(bundle: Path, length: int) -> None:
    with (bundle / "onnx/unet/model.onnx_data").open("r+b") as file:
        file.truncate(length)
    assert f"onnx/unet/model.onnx_data is corrupt: {length} bytes, not 600" in refused(bundle)


def test_a_cut_manifest_is_named(bundle: Path) -> None:
    for name in ("manifest.json", "manifest.sha256"):
        content = (bundle / name).read_bytes()
        for length in (0, 1, len(content) - 1):
            (bundle / name).write_bytes(content[:length])
            assert name in refused(bundle)
        (bundle / name).write_bytes(content)


@pytest.mark.parametrize("name", ["notes.txt", "onnx/unet/model.onnx.bak", "onnx/unet2/model.onnx", ".hidden", "a\nb"])
def test_extra_files_are_named(bundle: Path, name: str) -> None:
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).touch()
    said = refused(bundle)
    assert repr(name) in said and "not in the manifest" in said


def test_many_extra_files_make_one_short_line(bundle: Path) -> None:
    for number in range(500):
        (bundle / f"onnx/{number:03}").touch()
    assert "'onnx/000', 'onnx/001', 'onnx/002' and 497 more not in the manifest" in refused(bundle)


def test_renamed_and_swapped_files_are_named(bundle: Path) -> None:
    (bundle / "onnx/unet/model.onnx").rename(bundle / "onnx/unet/Model.onnx")
    said = refused(bundle)
    assert "'onnx/unet/model.onnx' missing" in said and "'onnx/unet/Model.onnx' not in the manifest" in said
    (bundle / "onnx/unet/Model.onnx").rename(bundle / "onnx/unet/model.onnx")
    one, two = bundle / "onnx/unet/model.onnx_data", bundle / "onnx/vae_decoder/model.onnx_data"
    one.rename(bundle / "x")
    two.rename(one)
    (bundle / "x").rename(two)
    assert "onnx/unet/model.onnx_data is corrupt: its sha256" in refused(bundle)


def test_links_and_odd_files_are_refused(bundle: Path) -> None:
    weights = bundle / "onnx/unet/model.onnx_data"
    outside = weights.rename(bundle.parent / "outside")
    weights.symlink_to(outside)
    assert "'onnx/unet/model.onnx_data' is a link" in refused(bundle)
    weights.unlink()
    os.mkfifo(weights)
    assert "'onnx/unet/model.onnx_data' is a link or not an ordinary file" in refused(bundle)
    weights.unlink()
    outside.rename(weights)
    (bundle / ".DS_Store").symlink_to("/etc")
    assert "'.DS_Store' is a link" in refused(bundle)
    (bundle / ".DS_Store").unlink()
    tokenizer = (bundle / "tokenizer").rename(bundle.parent / "tokenizer")
    (bundle / "tokenizer").symlink_to(tokenizer)
    assert "'tokenizer' is a link" in refused(bundle)
    (bundle / "tokenizer").unlink()
    tokenizer.rename(bundle / "tokenizer")
    for name in ("manifest.json", "manifest.sha256"):
        (bundle / name).rename(bundle.parent / name)
        (bundle / name).symlink_to(bundle.parent / name)
        assert f"{name} is a link" in refused(bundle)
        (bundle / name).unlink()
        (bundle.parent / name).rename(bundle / name)
    open_bundle(bundle)


def test_what_the_manifest_names_is_never_overlooked(bundle: Path) -> None:
    (bundle / "onnx/desktop.ini").write_bytes(b"1")
    (bundle / "LOST.DIR").mkdir()
    (bundle / "LOST.DIR/1").write_bytes(b"2")
    entries = {
        path: {"sha256": hashlib.sha256(raw).hexdigest(), "size": 1, "role": "runtime"}
        for path, raw in (("onnx/desktop.ini", b"1"), ("LOST.DIR/1", b"2"))
    }

    forge(bundle, "manifest.json", lambda fields: fields["files"].update(entries))
    assert {"onnx/desktop.ini", "LOST.DIR/1"} <= open_bundle(bundle).manifest.files.keys()
    for name in ("onnx/desktop.ini", "LOST.DIR/1"):
        (bundle / name).write_bytes(b"3")
        assert f"{name} is corrupt" in refused(bundle)
        (bundle / name).write_bytes(b"1" if name.startswith("onnx") else b"2")


@pytest.mark.parametrize("inside", ["", "bundles/phone"])
def test_a_snapshot_in_the_hubs_cache_opens(bundle: Path, tmp_path: Path, inside: str) -> None:
    """Every file is a link into the folder blobs beside the snapshots, in the repository's root or below it."""
    repository = tmp_path / "models--user--name"
    (bundle / ".gitattributes").write_text("*.onnx_data filter=lfs\n")
    snapshot = write_snapshot(bundle, repository, inside)
    assert open_bundle(snapshot).manifest == open_bundle(bundle).manifest
    (tmp_path / "short").symlink_to(snapshot)
    open_bundle(tmp_path / "short")
    with pytest.raises(ProofError, match="is a link"):
        seal(snapshot, open_bundle(bundle).manifest)
    weights = snapshot / "onnx/unet/model.onnx_data"
    blob = weights.resolve()
    blob.rename(repository / "elsewhere")
    assert "'onnx/unet/model.onnx_data' is not in the hub's cache: download it again" in refused(snapshot)
    weights.unlink()
    weights.symlink_to(repository / "elsewhere")
    assert "'onnx/unet/model.onnx_data' is a link" in refused(snapshot)
    weights.unlink()
    (repository / "elsewhere").rename(blob)
    blob.write_bytes(blob.read_bytes()[::-1])
    weights.symlink_to(blob)
    assert "model.onnx_data is corrupt: its sha256" in refused(snapshot)


@pytest.mark.parametrize("name", ["empty", "onnx/empty", "._folder", "manifest"])
def test_empty_folders_are_named(bundle: Path, name: str) -> None:
    (bundle / name).mkdir()
    assert f"'{name}/' is empty" in refused(bundle)


def test_a_forged_table_is_refused(bundle: Path) -> None:
    (bundle / "onnx/unet/model.onnx_data").write_bytes(bytes(600))
    digest = hashlib.sha256(bytes(600)).hexdigest()

    def change(fields: dict[str, Any]) -> None:
        fields["files"]["onnx/unet/model.onnx_data"]["sha256"] = digest

    fields = json.loads((bundle / "manifest.json").read_bytes())
    change(fields)
    write_manifest(bundle, json.dumps(fields).encode())
    assert "bundle_id is not the digest of the file table" in refused(bundle)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("../outside", "pattern"),
        ("onnx/UNet/model.onnx", "only in case"),
        ("manifest.json", "own digest"),
        ("onnx/x", "missing"),
    ],
)
def test_forged_paths_are_refused(bundle: Path, path: str, said: str) -> None:
    (bundle.parent / "outside").write_bytes(b"")
    entry = {"sha256": hashlib.sha256(b"").hexdigest(), "size": 0, "role": "runtime"}

    def change(fields: dict[str, Any]) -> None:
        fields["files"][path] = entry
        fit_ids(fields)

    reseal(bundle, change)
    assert said in refused(bundle)


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"version": "2"}', b'{"version": 2}']
)
def test_rubbish_with_the_right_digest_is_refused(bundle: Path, raw: bytes) -> None:
    write_manifest(bundle, raw)
    assert "manifest.json is not a manifest" in refused(bundle)


@pytest.mark.parametrize("path", ["pipeline/onnx.json", "proof.json", "steps/tables.bin"])
@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"graphs": 1}'])
def test_rubbish_in_the_other_files_is_named(bundle: Path, path: str, raw: bytes) -> None:
    (bundle / path).write_bytes(raw)
    reseal(bundle)
    assert f"{path} is not a valid " in refused(bundle)


@pytest.mark.parametrize("path", ["pipeline/onnx.json", "proof.json", "steps/tables.bin"])
def test_what_is_believed_is_always_compared_with_its_digest(bundle: Path, path: str) -> None:
    raw = (bundle / path).read_bytes()
    changed = raw.replace(b"onnx", b"ONNX").replace(b"ddim", b"euld")
    (bundle / path).write_bytes(raw[::-1] if path.endswith(".bin") else changed)
    assert f"{path} is corrupt: its sha256" in refused(bundle, check=False)


def test_what_is_no_bundle_is_the_users_mistake(tmp_path: Path, bundle: Path) -> None:
    assert "is not a folder" in refused(tmp_path / "absent", UserError)
    assert "is not a folder" in refused(bundle / "manifest.json", UserError)
    assert "has no manifest.json" in refused(bundle / "onnx", UserError)
    forge(bundle, "manifest.json", lambda fields: fields.update(version=3))
    assert "is a bundle of version 3, and this pocketdiffusion reads version 2" in refused(bundle, UserError)


def test_failed_bundles_open_only_where_asked(bundle: Path) -> None:
    proven = open_bundle(bundle).manifest
    failed = proven.model_copy(update={"verdicts": (*proven.verdicts, verdict("unet.out_sample", psnr_db=41.26))})
    seal(bundle, failed)
    with pytest.raises(ProofError, match=r"unet.out_sample failed its proof \(fp16, 41.3 dB, floor 65.0 dB\)"):
        open_bundle(bundle)
    assert not open_unproven(bundle).manifest.verdicts[-1].passed


def test_a_graph_that_nobody_judged_does_not_open(bundle: Path) -> None:
    """Nor one that only a rung below it was judged of, such as torch with the weights of its recipe."""
    proven = open_bundle(bundle).manifest
    for unproven in (
        [v for v in proven.verdicts if not v.subject.startswith("unet")],
        [replace(v, format=None) if v.subject.startswith("unet") else v for v in proven.verdicts],
        [replace(v, rung="quantized") if "unet" in v.subject else v for v in proven.verdicts],
        [replace(v, storage="float32") if v.subject.startswith("unet") else v for v in proven.verdicts],
        [replace(v, subject=v.subject.replace("out_sample", "x")) for v in proven.verdicts],
    ):
        assert not seal(bundle, proven.model_copy(update={"verdicts": tuple(unproven)})).proof.passed
        with pytest.raises(ProofError, match="no verdict on out_sample of the onnx graph unet"):
            open_bundle(bundle)
        open_unproven(bundle)


def test_what_cannot_be_sealed(tmp_path: Path) -> None:
    draft = write_sample(tmp_path)
    (tmp_path / "a name with spaces").touch()
    with pytest.raises(ValueError, match="pattern"):
        seal(tmp_path, draft)
    (tmp_path / "a name with spaces").unlink()
    (tmp_path / "link").symlink_to("tokenizer")
    with pytest.raises(ProofError, match="'link' is a link"):
        seal(tmp_path, draft)
    (tmp_path / "link").unlink()
    (tmp_path / "tokenizer/merges.txt").unlink()
    with pytest.raises(
        ValueError, match="the file of merges of tokenizer 1 is tokenizer/merges.txt, which is not in the file table"
    ):
        seal(tmp_path, draft)
    assert not (tmp_path / "manifest.json").exists()


def test_the_manifest_on_disk_is_canonical(sealed: Path) -> None:
    raw = (sealed / "manifest.json").read_bytes()
    assert encode(decode(raw, Index)) == raw
