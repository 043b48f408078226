"""Exports that end well or badly, in one process."""

import errno
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support.sample_bundle import verdict, write_sample
from support.staged_exports import export, export_failed, fork, inside, mark_of, wait

from pocketdiffusion.runtime.bundle import staging
from pocketdiffusion.runtime.bundle.bundle import open_bundle, open_unproven
from pocketdiffusion.runtime.bundle.sealing import seal
from pocketdiffusion.runtime.bundle.staging import check_output_folder, exchange, scratch_next_to, stage
from pocketdiffusion.runtime.errors import ProofError, UserError


def test_a_bundle_appears_under_its_name_alone(tmp_path: Path) -> None:
    export(tmp_path / "a/b/bundle")
    assert mark_of(tmp_path / "a/b/bundle") == "first"
    assert inside(tmp_path / "a/b") == ["bundle"]
    assert (tmp_path / "a/b/bundle").stat().st_mode == (tmp_path / "a/b").stat().st_mode


def test_nothing_is_there_before_the_end(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    with stage(out) as folder:
        seal(folder, write_sample(folder))
        assert not out.exists() and folder.stat().st_dev == tmp_path.stat().st_dev
    assert open_bundle(out)


def test_a_bundle_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    export(out)
    with stage(out) as folder:
        assert mark_of(out) == "first"
        draft = write_sample(folder, many=1)
        (folder / "report/report.json").write_text("second")
        seal(folder, draft)
        assert mark_of(out) == "first"
    assert mark_of(out) == "second" and inside(tmp_path) == ["bundle"]


def test_where_the_system_cannot_exchange_two_renames_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "exchange", lambda a, b: False)
    export(tmp_path / "bundle")
    export(tmp_path / "bundle", mark="second")
    assert mark_of(tmp_path / "bundle") == "second" and inside(tmp_path) == ["bundle"]


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is Linux's")
def test_exchange(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    (one / "a").mkdir(parents=True)
    (two / "b").mkdir(parents=True)
    assert exchange(one, two)
    assert inside(one) == ["b"] and inside(two) == ["a"]
    with pytest.raises(FileNotFoundError):
        exchange(one, tmp_path / "three")


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt(), SystemExit(3), PermissionError(13, "no")])
@pytest.mark.parametrize("before", [False, True])
def test_an_interrupted_export_leaves_what_was(tmp_path: Path, error: BaseException, before: bool) -> None:
    out = tmp_path / "deep/er/bundle"
    if before:
        export(out)
    with pytest.raises(type(error)), stage(out) as folder:
        seal(folder, write_sample(folder))
        raise error
    assert inside(tmp_path) == (["deep"] if before else [])
    if before:
        assert inside(out.parent) == ["bundle"] and mark_of(out) == "first"


def test_what_is_not_a_proven_bundle_is_not_published(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    with pytest.raises(UserError, match="is not a bundle"), stage(out):
        pass
    with pytest.raises(ProofError, match="not in the manifest"), stage(out) as folder:
        seal(folder, write_sample(folder))
        (folder / "late.txt").touch()
    with pytest.raises(ProofError, match="failed its proof"), stage(out) as folder:
        draft = write_sample(folder)
        seal(folder, draft.model_copy(update={"verdicts": (*draft.verdicts, verdict("unet", 20.0))}))
    assert inside(tmp_path) == []


@pytest.mark.parametrize("what", ["file", "link", "folder", "bundle with notes", "bundle with link"])
def test_what_is_not_ours_is_not_touched(tmp_path: Path, what: str) -> None:
    out, started = tmp_path / "out", False
    if what == "file":
        out.write_text("mine")
    elif what == "link":
        export(tmp_path / "bundle")
        out.symlink_to("bundle")
    elif what == "folder":
        (out / "photos").mkdir(parents=True)
        (out / "photos/me.jpg").write_text("mine")
    else:
        export(out)
        (out / "notes.txt").symlink_to("x") if "link" in what else (out / "notes.txt").write_text("mine")
    before = sorted((p, p.lstat().st_mtime_ns) for p in tmp_path.rglob("*"))
    with pytest.raises(UserError, match=r"exists and is|holds 'notes.txt'"):
        check_output_folder(out)
    with pytest.raises(UserError, match=r"exists and is|holds 'notes.txt'") as caught, stage(out):
        started = True
    assert not started and "\n" not in str(caught.value)
    assert sorted((p, p.lstat().st_mtime_ns) for p in tmp_path.rglob("*")) == before


def test_notes_put_into_the_old_bundle_meanwhile_are_kept(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    export(out)
    with pytest.raises(UserError, match="holds 'notes.txt'"), stage(out) as folder:
        seal(folder, write_sample(folder))
        (out / "notes.txt").write_text("mine")
    assert (out / "notes.txt").read_text() == "mine" and inside(tmp_path) == ["bundle"]


def test_an_empty_folder_and_a_damaged_bundle_give_way(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    out.mkdir()
    export(out)
    (out / "onnx/unet/model.onnx").write_bytes(b"damaged")
    (out / "tokenizer/merges.txt").unlink()
    (out / ".DS_Store").touch()
    export(out, mark="second")
    assert mark_of(out) == "second"


@pytest.mark.parametrize("name", ["", ".", "..", "/"])
def test_places_without_a_name(name: str) -> None:
    with pytest.raises(UserError, match="cannot be an output folder"), stage(Path(name)):
        pytest.fail("started")


def test_a_place_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    check_output_folder(tmp_path / "deep/er/bundle")
    assert inside(tmp_path) == []
    out = tmp_path / "bundle"
    export(out)
    check_output_folder(out)
    assert mark_of(out) == "first" and inside(tmp_path) == ["bundle"]
    with pytest.raises(RuntimeError, match="after"), stage(out):
        with pytest.raises(UserError, match="another process is exporting"):
            check_output_folder(out)
        raise RuntimeError("after")
    with pytest.raises(UserError, match="cannot write to"):
        check_output_folder(out / "manifest.json/bundle")


def test_a_relative_place_stays_where_it_was_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with stage(Path("bundle")) as folder:
        monkeypatch.chdir("elsewhere")
        seal(folder, write_sample(folder))
    assert open_bundle(tmp_path / "bundle")


def test_a_failed_bundle_is_kept_beside(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    export(out)
    for mark in ("one", "two"):
        with pytest.raises(ProofError, match=r"kept as .*bundle\.failed"):
            export_failed(out, mark)
        assert inside(tmp_path) == ["bundle", "bundle.failed"] and mark_of(out) == "first"
        assert (open_unproven(tmp_path / "bundle.failed").folder / "report/report.json").read_text() == mark
    with pytest.raises(ProofError, match="failed its proof"):
        open_bundle(tmp_path / "bundle.failed")


def test_a_folder_that_only_looks_failed_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "bundle.failed").mkdir()
    (tmp_path / "bundle.failed/mine").touch()
    with pytest.raises(UserError, match="bundle.failed exists and is not a folder that an export wrote"):
        export_failed(tmp_path / "bundle")
    assert inside(tmp_path) == ["bundle.failed"] and inside(tmp_path / "bundle.failed") == ["mine"]


def test_a_file_size_limit_is_one_clear_line(tmp_path: Path) -> None:
    said = tmp_path / "said"

    def run() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            export(tmp_path / "place/bundle")
        except UserError as error:
            os.write(descriptor, str(error).encode())
            raise

    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT)
    assert wait(fork(run)) == 2
    os.close(descriptor)
    assert said.read_text().startswith(f"cannot write {tmp_path / 'place/bundle'}: a file grew past the largest size")
    assert "\n" not in said.read_text() and inside(tmp_path) == ["said"]


def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught, stage(tmp_path / "bundle") as folder:
        (folder / "weights").write_bytes(bytes(3_000_000))
        with open("/dev/full", "wb") as full:  # the kernel's own full disk
            full.write(b"x")
    assert f"cannot write {tmp_path / 'bundle'}: disk full after 3 MB" in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError) and caught.value.__cause__.errno == errno.ENOSPC
    assert inside(tmp_path) == []


def test_temporary_files_are_made_beside_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By libraries and child processes too, which take no folder; TMPDIR may be on a full disk."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "elsewhere").mkdir()
    out, ask = tmp_path / "bundle", [sys.executable, "-c", "import tempfile; print(tempfile.gettempdir())"]
    with scratch_next_to(out):
        assert tempfile.mkdtemp().startswith(f"{tmp_path}/.bundle.scratch/")
        with pytest.raises(UserError, match="another process is exporting"), scratch_next_to(out):
            pytest.fail("started")
        with stage(out) as folder:
            assert tempfile.gettempdir() == f"{tmp_path}/.bundle.partial/scratch"
            assert subprocess.check_output(ask, text=True).strip() == tempfile.gettempdir()
            tempfile.mkdtemp()
            seal(folder, write_sample(folder))
        assert tempfile.gettempdir() == f"{tmp_path}/.bundle.scratch"
    assert tempfile.gettempdir() == str(tmp_path / "elsewhere") == os.environ["TMPDIR"]
    assert inside(tmp_path) == ["bundle", "elsewhere"] and open_bundle(out)
    (tmp_path / ".bundle.scratch").mkdir()
    (tmp_path / ".bundle.scratch/of one that was killed").touch()
    with scratch_next_to(out):
        assert inside(tmp_path / ".bundle.scratch") == []
    assert inside(tmp_path) == ["bundle", "elsewhere"]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file/bundle", Path("/proc/bundle"), tmp_path / ("x" * 250)):
        with pytest.raises(UserError, match="cannot write to") as caught, stage(out):
            pytest.fail("started")
        assert "\n" not in str(caught.value)
