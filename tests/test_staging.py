"""Exports that end badly. The children are forked, so that a hundred of them cost seconds."""

import errno
import os
import random
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from sample_bundle import verdict, write_sample

from pocketdiffusion.runtime import staging
from pocketdiffusion.runtime.bundle import open_bundle, open_unproven, seal
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.staging import exchange, keep_failed, stage


@pytest.fixture
def quick_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: fsync costs nothing there, and a killed process loses no written page."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def export(out: Path, *, many: int = 0, mark: str = "first") -> None:
    """The shape of a real export. `mark` tells one export from another."""
    with stage(out) as folder:
        draft = write_sample(folder, many=many)
        (folder / "report/report.json").write_text(mark)
        seal(folder, draft)


def export_failed(out: Path, mark: str = "first") -> None:
    """An export whose proof fails."""
    with stage(out) as folder:
        draft = write_sample(folder)
        (folder / "report/report.json").write_text(mark)
        bad = verdict("unet.out_sample", psnr_db=20.0)
        seal(folder, draft.model_copy(update={"verdicts": (*draft.verdicts, bad)}))
        kept = keep_failed(folder, out)
        raise ProofError(f"kept as {kept}")


def mark_of(out: Path) -> str:
    return (open_bundle(out).folder / "report/report.json").read_text()


def inside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fork(run: Callable[[], object]) -> int:
    """The child's process id. It exits with 0, with 2 for UserError, with 9 for anything else."""
    child = os.fork()
    if child:
        return child
    code = 9
    try:
        run()
        code = 0
    except UserError:
        code = 2
    finally:
        os._exit(code)


def wait(child: int) -> int:
    """The exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


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
    with pytest.raises(UserError, match="not a bundle"), stage(out):
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
    with pytest.raises(UserError, match=r"not a bundle|holds 'notes.txt'") as caught, stage(out):
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
    with pytest.raises(UserError, match="not a name for a bundle"), stage(Path(name)):
        pytest.fail("started")


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
    with pytest.raises(UserError, match="bundle.failed is there already"):
        export_failed(tmp_path / "bundle")
    assert inside(tmp_path) == ["bundle.failed"] and inside(tmp_path / "bundle.failed") == ["mine"]


@contextmanager
def running_export(out: Path) -> Iterator[int]:
    """Another process in the middle of an export to `out`."""
    reader, writer = os.pipe()

    def run() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        with stage(out) as folder:
            write_sample(folder)
            os.write(writer, b"!")
            time.sleep(600)

    child = fork(run)
    assert os.read(reader, 1) == b"!"
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        wait(child)
        os.close(reader)
        os.close(writer)


def test_two_processes_do_not_export_to_one_place(tmp_path: Path) -> None:
    with running_export(tmp_path / "bundle"):
        with pytest.raises(UserError, match=r"another process is exporting to .*/bundle: "):
            export(tmp_path / "bundle")
        export(tmp_path / "other")
        assert inside(tmp_path) == [".bundle.partial", "other"]
    assert inside(tmp_path) == [".bundle.partial", "other"]
    export(tmp_path / "bundle", mark="second")
    assert inside(tmp_path) == ["bundle", "other"] and mark_of(tmp_path / "bundle") == "second"


def test_processes_that_race_for_one_place(quick_path: Path) -> None:
    """Each exports another bundle a hundred times, and is turned away for the one good reason only."""

    def run(mark: str) -> None:
        done, deadline = 0, time.monotonic() + 60
        while done < 100 and time.monotonic() < deadline:
            try:
                export(quick_path / "bundle", many=2 * "abc".index(mark), mark=mark)
                done += 1
            except UserError as error:
                assert "another process is exporting" in str(error), error
                time.sleep(0.001)
        assert done == 100

    children = [fork(lambda mark=mark: run(mark)) for mark in "abc"]  # type: ignore[misc]
    assert [wait(child) for child in children] == [0, 0, 0]
    assert mark_of(quick_path / "bundle") in "abc" and inside(quick_path) == ["bundle"]


def test_a_folder_whose_owner_ends_between_opening_and_locking_it(tmp_path: Path) -> None:
    work = tmp_path / ".bundle.partial"

    def run() -> None:
        work.mkdir()  # an owner's, who is about to remove it
        removed = False

        def hook(event: str, _: object) -> None:
            nonlocal removed
            if event == "fcntl.flock" and not removed:
                removed = True
                work.rmdir()

        sys.addaudithook(hook)
        export(tmp_path / "bundle")
        assert removed

    assert wait(fork(run)) == 0
    assert inside(tmp_path) == ["bundle"] and mark_of(tmp_path / "bundle") == "first"


def test_sigint_in_another_process(tmp_path: Path) -> None:
    with running_export(tmp_path / "bundle") as child:
        os.kill(child, signal.SIGINT)
        deadline = time.monotonic() + 30
        while inside(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert inside(tmp_path) == []


def check_after_death(out: Path, earlier: bool) -> None:
    """The place holds a whole bundle or none, and the next export cleans up."""
    if earlier:
        assert out.exists()
    if out.exists():
        open_bundle(out)
    export(out, mark="after")
    assert inside(out.parent) == [out.name] and mark_of(out) == "after"


@pytest.mark.parametrize("earlier", [False, True])
def test_sigkill_at_random_moments(quick_path: Path, earlier: bool) -> None:
    chance = random.Random(11)
    out = quick_path / "bundle"
    began = time.monotonic()
    export(out, many=60)
    lasts = time.monotonic() - began

    def run() -> None:
        while True:
            export(out, many=60)

    for _ in range(20):
        if not earlier:
            shutil.rmtree(out)
        child = fork(run)
        time.sleep(chance.uniform(0, 1.5 * lasts))
        os.kill(child, signal.SIGKILL)
        assert wait(child) == -signal.SIGKILL
        check_after_death(out, earlier)


EVENTS = ("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.scandir", "os.listdir", "fcntl.flock")


def count_events(at: int) -> Callable[[], int]:
    """Counts this process's calls to the file system from now on, and kills it before call number `at`."""
    seen = 0

    def hook(event: str, _: object) -> None:
        nonlocal seen
        if event in EVENTS or event.startswith("ctypes.call"):
            seen += 1
            if seen == at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return lambda: seen


@pytest.mark.parametrize("swap", ["exchange", "two renames"])
def test_sigkill_before_every_call(quick_path: Path, monkeypatch: pytest.MonkeyPatch, swap: str) -> None:
    """Dies before the first call to the file system, before the second, ... of an export over an older bundle."""
    if swap == "two renames":
        monkeypatch.setattr(staging, "exchange", lambda a, b: False)
    out, said = quick_path / "place/bundle", quick_path / "said"
    export(out)

    def run(at: int) -> None:
        seen = count_events(at)
        export(out, mark="second")
        said.write_text(str(seen()))

    assert wait(fork(lambda: run(-1))) == 0
    calls = int(said.read_text())
    assert calls > 100
    gone = 0
    for at in range(1, calls + 1):
        assert wait(fork(lambda at=at: run(at))) == -signal.SIGKILL  # type: ignore[misc]
        if swap == "two renames" and not out.exists():
            gone += 1
            with pytest.raises(RuntimeError), stage(out):
                raise RuntimeError("the next export fails, too")
            assert inside(out.parent) == ["bundle"]
        assert mark_of(out) in ("first", "second", "after")
        if at % 10 == 0 or at > calls - 60:
            check_after_death(out, earlier=True)
    assert gone == (swap == "two renames")


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


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file/bundle", Path("/proc/bundle"), tmp_path / ("x" * 250)):
        with pytest.raises(UserError, match="cannot write to") as caught, stage(out):
            pytest.fail("started")
        assert "\n" not in str(caught.value)
