"""The file table: roles, ids, and paths that no disk can hold beside each other."""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
from support.sample_bundle import write_sample

from pocketdiffusion.runtime.bundle.file_table import FileEntry, Role, bundle_id, check_table, role_of, runtime_id
from pocketdiffusion.runtime.bundle.json_files import decode
from pocketdiffusion.runtime.bundle.layout import Index
from pocketdiffusion.runtime.bundle.sealing import seal


def test_ids_are_what_sha256sum_prints(tmp_path: Path) -> None:
    manifest = seal(tmp_path, write_sample(tmp_path))

    def digest(paths: str) -> str:
        listing = f"find {paths} -type f | LC_ALL=C sort | xargs sha256sum"
        lines = subprocess.run(listing, shell=True, cwd=tmp_path, check=True, capture_output=True).stdout
        return hashlib.sha256(lines).hexdigest()

    runtime = "README.md conformance licences onnx/*/model.onnx* pipeline steps tokenizer golden/0.png golden/0/*"
    assert manifest.runtime_id == digest(runtime)
    assert manifest.bundle_id == digest(
        "README.md conformance golden licences onnx pipeline proof.json steps tokenizer"
    )
    added = FileEntry(sha256="1" * 64, size=3, role="report")
    for role, ids in (("report", ""), ("proof", "b"), ("companion", "b"), ("runtime", "br")):
        files = {**manifest.files, "new": added.model_copy(update={"role": role})}
        assert (bundle_id(files) != manifest.bundle_id) == ("b" in ids)
        assert (runtime_id(files) != manifest.runtime_id) == ("r" in ids)


@pytest.mark.parametrize(
    ("path", "role"),
    [
        ("onnx/unet/model.onnx", "runtime"),
        ("onnx/unet/config.json", "companion"),
        ("coreml/compile_for_apple.sh", "companion"),
        ("pipeline/onnx.json", "runtime"),
        ("steps/tables.bin", "runtime"),
        ("conformance/noise.bin", "runtime"),
        ("README.md", "runtime"),
        ("proof.json", "proof"),
        ("golden/1.png", "proof"),
        ("report/report.html", "report"),
    ],
)
def test_roles(path: str, role: Role) -> None:
    assert role_of(path, {"onnx/unet/model.onnx"}) == role


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (("onnx/model.onnx", "onnx/Model.onnx"), "differ only in case"),
        (("onnx/a.bin", "ONNX/b.bin"), "differ only in case"),
        (("onnx", "onnx/a.bin"), "both a file and a folder"),
        (("onnx/a.bin", "onnx/a.bin/b"), "both a file and a folder"),
        (("Manifest.JSON",), "its own digest"),
        (("manifest.sha256",), "its own digest"),
    ],
)
def test_file_tables_that_no_disk_can_hold(paths: tuple[str, ...], said: str) -> None:
    entry = FileEntry(sha256="0" * 64, size=0, role="runtime")
    for order in (paths, paths[::-1]):
        with pytest.raises(ValueError, match=said):
            check_table({path: entry for path in order})
    check_table({f"{path}.{n}": entry for n, path in enumerate(("golden/0/x", "golden/0x", "golden/1/x"))})


PATHS = (
    "/etc/passwd",
    "../x",
    "a/../b",
    "a//b",
    "a/",
    "./a",
    "a\\b",
    "C:a",
    ".git/x",
    "a/.b",
    "a.",
    "a b",
    "-x",
    "é",
    "",
    "a\n",
)


@pytest.mark.parametrize("path", PATHS)
def test_paths_that_leave_the_bundle_are_refused(tmp_path: Path, path: str) -> None:
    seal(tmp_path, write_sample(tmp_path))
    fields = json.loads((tmp_path / "manifest.json").read_bytes())
    fields["files"][path] = {"sha256": "0" * 64, "size": 0, "role": "runtime"}
    with pytest.raises(ValueError, match="pattern"):
        decode(json.dumps(fields).encode(), Index)
