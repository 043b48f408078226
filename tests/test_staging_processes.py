"""Several processes export to one place, and are killed at any moment. The children are forked."""

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from support.sample_bundle import write_sample
from support.staged_exports import export, fork, inside, mark_of, wait

from pocketdiffusion.runtime.bundle import staging
from pocketdiffusion.runtime.bundle.bundle import open_bundle
from pocketdiffusion.runtime.bundle.staging import stage
from pocketdiffusion.runtime.errors import UserError

pytestmark = pytest.mark.slow  # each test emits a graph, or starts a process


@pytest.fixture
def quick_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: fsync costs nothing there, and a killed process loses no written page."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


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
        if at % 10 == 0 or at > calls - 120:  # the last 60 or so remove the older bundle
            check_after_death(out, earlier=True)
    assert gone == (swap == "two renames")
