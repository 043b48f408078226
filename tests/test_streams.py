"""Commands whose standard streams are closed, are broken pipes, or lead to a full disk: no traceback, right codes."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

COMMAND = f"{sys.executable} -m pocketdiffusion"


def shell(line: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A line of bash, with `$P` for the command; it ends with the code of the first part of a pipe."""
    done = subprocess.run(
        ["bash", "-c", f"P='{COMMAND}'; {line}; exit ${{PIPESTATUS[0]}}"],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize("streams", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-", "<&- >&-"])
def test_closed_streams(streams: str, tmp_path: Path) -> None:
    done = shell(f"$P targets {streams}", tmp_path)
    assert done.returncode == 0 and ("pixel-8" in done.stdout) == (">&-" not in streams.split())
    done = shell(f"$P inspect nothing {streams}", tmp_path)
    assert done.returncode == 2 and ("no folder nothing" in done.stderr) == ("2>&-" not in streams)


def test_a_file_that_is_written_does_not_take_the_place_of_a_closed_stream(tiny_bundle: Path, tmp_path: Path) -> None:
    """What is printed would go into the picture."""
    done = shell(f"$P generate {tiny_bundle} apple --steps 1 -o out.png <&- >&- 2>&-", tmp_path)
    assert done.returncode == 0 and (tmp_path / "out.png").read_bytes().endswith(b"IEND\xaeB`\x82")


@pytest.mark.parametrize("command", ["targets", "--help", "inspect {bundle}"])
def test_a_reader_that_is_gone(command: str, tiny_bundle: Path, tmp_path: Path) -> None:
    """141, as other commands end then: 1 is for a proof that failed."""
    words = command.format(bundle=tiny_bundle)
    done = shell(f"$P {words} | true", tmp_path)
    assert (done.returncode, done.stderr) == (141, "")
    done = shell(f"$P {words} 2>&1 | true", tmp_path)
    assert done.returncode == 141
    done = shell(f"$P {words} nothing 2>&1 | true", tmp_path)
    assert done.returncode in (2, 141)


def test_output_on_a_full_disk(tmp_path: Path) -> None:
    done = shell("$P targets > /dev/full", tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        "pocketdiffusion: cannot write to standard output: No space left on device\n",
    )


NAMELESS = (
    "setpriv --reuid 12345 --clear-groups --inh-caps +dac_read_search,+dac_override "
    "--ambient-caps +dac_read_search,+dac_override env -u HOME -u USER -u LOGNAME"
)


@pytest.fixture
def readable_bundle(tiny_bundle: Path) -> Iterator[Path]:
    """A copy that every user may read: pytest's own folders are their owner's alone."""
    with TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(shutil.copytree(tiny_bundle, Path(folder) / "bundle"))


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="another user id needs root on Linux")
def test_a_user_without_home_and_name(readable_bundle: Path, tmp_path: Path) -> None:
    """As in a container that was started with --user: `~` stands for nothing."""
    if shell(f"{NAMELESS} {sys.executable} -c ''", tmp_path).returncode:
        pytest.skip("another user cannot run this Python")
    done = shell(f"{NAMELESS} $P devices list", tmp_path)
    assert done.returncode == 0 and "stand-in arm64" in done.stdout and "HOME is not set" in done.stdout
    done = shell(f"{NAMELESS} $P verify {readable_bundle} --device arm64", tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "give --standins" in done.stderr
    done = shell(f"{NAMELESS} $P devices install gpu", tmp_path)
    assert done.returncode == 2 and "give --standins" in done.stderr
    assert not list(tmp_path.iterdir()), "no folder called ~"
