"""Real exports that are interrupted, killed, or run out of disk: a bundle is whole or it is not there."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from pocketdiffusion.runtime.bundle.bundle import open_bundle

pytestmark = pytest.mark.slow  # each test emits a graph, or starts a process

KILLS = 8


def start(checkpoint: Path, out: Path, **options: str) -> subprocess.Popen[str]:
    """An export that goes on while the test does."""
    command = ["-m", "pocketdiffusion", "export", str(checkpoint), "--target", "generic", "--format", "onnx", "--force"]
    return begin([*command, "-o", str(out)], options)


def begin(command: list[str], options: Mapping[str, str]) -> subprocess.Popen[str]:
    """Python with these arguments, in a process that hears interrupts."""
    return subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **options},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )


# What the command runs, with each step on stdout: where nobody looks on, the command shows none.
TOLD = """
import sys
from pathlib import Path
from pocketdiffusion.cli.console import run

def export():
    print("loading torch", flush=True)
    from pocketdiffusion import build
    from pocketdiffusion.choices import ExportOptions
    model, out = sys.argv[1:]
    build.export(model, "generic", Path(out), ExportOptions(format="onnx"), lambda line: print(line, flush=True))

run(export)
"""


def inside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("moment", ["loading torch", "recording the original: prompt 2 of 4", "writing onnx unet"])
def test_an_interrupt_leaves_nothing(moment: str, micro_checkpoint: Path, tmp_path: Path) -> None:
    export = begin(["-c", TOLD, str(micro_checkpoint), str(tmp_path / "out")], {})
    assert export.stdout is not None
    for line in export.stdout:
        if moment in line:
            break
    time.sleep(0.5)
    export.send_signal(signal.SIGINT)
    _, said = export.communicate(timeout=200)
    assert (export.returncode, said) == (130, "pocketdiffusion: interrupted\n")
    assert inside(tmp_path) == []


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("lambda: exec('signal.raise_signal(signal.SIGINT); time.sleep(99)')", id="a string executed"),
        pytest.param("lambda: (weakref.ref(Gone(), interrupt), time.sleep(99))", id="a weak reference's callback"),
        pytest.param("lambda: (Destroyed() and None, time.sleep(99))", id="a destructor"),
        pytest.param("hidden", id="a library that makes another error of it"),
    ],
)
def test_an_interrupt_is_heard_wherever_it_comes(command: str, tmp_path: Path) -> None:
    """Strings are executed by imports, as namedtuple does it; torch has many weak references, and pydantic makes
    an error of its own of what is raised in a serializer. It ends the command at once, and not in a traceback."""
    process = start_script(tmp_path, command)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "pocketdiffusion: interrupted\n")


@pytest.mark.parametrize("command", ["swallowed", "stuck"])
def test_a_second_interrupt_ends_the_process(command: str, tmp_path: Path) -> None:
    """Also where a library goes on after the first one, or what is cleaned up after it gets stuck."""
    process = start_script(tmp_path, command)
    assert process.stdout is not None and process.stdout.readline() == "again\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (-signal.SIGINT, "")


def start_script(folder: Path, command: str) -> subprocess.Popen[str]:
    """A process that runs `command`, a Python expression, as the command line does."""
    (folder / "interrupted.py").write_text(
        "import signal, time, weakref\n"
        "from pocketdiffusion.cli.console import run\n"
        "def interrupt(_): signal.raise_signal(signal.SIGINT)\n"
        "def hidden():\n"
        "    try: signal.raise_signal(signal.SIGINT)\n"
        "    except KeyboardInterrupt: raise ValueError('no number') from None\n"
        "def swallowed():\n"
        "    try: signal.raise_signal(signal.SIGINT)\n"
        "    except KeyboardInterrupt: pass\n"
        "    print('again', flush=True)\n"
        "    while True:\n"
        "        try: time.sleep(99)\n"
        "        except KeyboardInterrupt: pass\n"
        "def stuck():\n"
        "    try: signal.raise_signal(signal.SIGINT)\n"
        "    finally: print('again', flush=True); time.sleep(99)\n"
        "class Gone: pass\n"
        "class Destroyed: __del__ = interrupt\n"
        f"run({command})\n"
    )
    path = os.pathsep.join([str(folder), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-m", "interrupted"],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.slow
def test_a_killed_export_leaves_no_half_bundle(micro_checkpoint: Path, tmp_path: Path) -> None:
    """Killed at random moments, first where there is no bundle yet, then where an older one is in its place."""
    moments = random.Random(20)
    out = tmp_path / "out"
    begun = time.monotonic()
    first = start(micro_checkpoint, out)
    assert first.communicate()[1] == ""
    seconds = time.monotonic() - begun
    older = open_bundle(out).manifest.bundle_id
    finished = 0
    for kill in range(KILLS):
        if kill < KILLS // 2 and out.exists():
            shutil.rmtree(out)
        elif kill >= KILLS // 2 and not out.exists():
            assert start(micro_checkpoint, out).wait() == 0
        begun = time.monotonic()
        export = start(micro_checkpoint, out)
        try:
            export.wait(seconds * moments.uniform(0.3, 0.9))  # before, Python is only starting
            finished += 1
            seconds = time.monotonic() - begun  # the machine has less to do than it had
        except subprocess.TimeoutExpired:
            export.kill()
        export.communicate()
        if out.exists():
            assert open_bundle(out).manifest.bundle_id == older
        elif kill >= KILLS // 2:
            pytest.fail("the older bundle is gone")
        assert set(inside(tmp_path)) <= {"out", ".out.partial", ".out.scratch"}
    assert finished < KILLS // 2, "too few were killed to prove anything"
    assert start(micro_checkpoint, out).wait() == 0
    assert inside(tmp_path) == ["out"]
    assert open_bundle(out).manifest.bundle_id == older


@pytest.fixture
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A disk of so many bytes. Only root may mount one."""
    if os.geteuid() != 0 or sys.platform != "linux":
        pytest.skip("mounting a disk needs root on Linux")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={request.param}", "tmpfs", str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("small_disk", ["64k"], indirect=True)
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("iphone-15",), id="coreml"),
        pytest.param(("galaxy-s24", "--format", "tflite"), id="tflite"),
        pytest.param(("generic", "--format", "onnx", "--recipe", "w8a8"), id="onnx"),
    ],
)
def test_temporary_files_need_no_room_where_tmpdir_is(
    options: tuple[str, ...], small_disk: Path, micro_checkpoint: Path, tmp_path: Path
) -> None:
    """TMPDIR on a disk that is nearly full, as /tmp in memory is: scratch space lies beside the bundle."""
    command = [sys.executable, "-m", "pocketdiffusion", "export", str(micro_checkpoint), "-o", str(tmp_path / "out")]
    environment = {**os.environ, "TMPDIR": str(small_disk)}
    done = subprocess.run(
        [*command, "--target", *options], env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0 and "disk" not in done.stderr, done.stderr
    assert inside(tmp_path) == ["disk", "out"]
    assert set(inside(small_disk)) <= {".ses"}  # a few bytes that a library leaves when it is imported


@pytest.mark.slow
@pytest.mark.parametrize("small_disk", ["2m", "9m", "10900k"], indirect=True)
def test_a_full_disk(small_disk: Path, tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    """The disks fill up in the graphs, in the golden vectors, in the report: a bundle of this model has 11.3 MB."""
    export = start(tiny_checkpoint, small_disk / "out")
    _, said = export.communicate(timeout=300)
    assert export.returncode == 2
    assert said.startswith("pocketdiffusion: cannot write ") and "disk full" in said and len(said.splitlines()) == 1
    assert inside(small_disk) == []
