"""The command line as a user meets it: processes of their own, exit codes, one line for each mistake."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

Arguments = tuple[str | Path, ...]
TIMEOUT = 500  # seconds
SERVER = Path(__file__).with_name("command_server.py")


def call(
    *arguments: str | Path, cwd: Path | None = None, file_size: int | None = None, fresh: bool = False
) -> subprocess.CompletedProcess[str]:
    """Runs `pocketdiffusion` in a process that is forked where torch has been imported, or in a `fresh` one.

    `file_size` is the largest file in bytes that it may write (ulimit -f). Nothing that it says may hold a traceback.
    """
    words = [str(word) for word in arguments]
    done = _fresh(words, cwd) if fresh else _forked(words, cwd, file_size)
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return done


def refusal(*arguments: str | Path, cwd: Path | None = None, file_size: int | None = None, fresh: bool = False) -> str:
    """What the one line on stderr says, of a command that ends with 2."""
    done = call(*arguments, cwd=cwd, file_size=file_size, fresh=fresh)
    assert done.returncode == 2, (done.returncode, done.stderr, done.stdout)
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("pocketdiffusion: ")
    return lines[0].removeprefix("pocketdiffusion: ")


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _fresh(arguments: list[str], cwd: Path | None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pocketdiffusion", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env=_environment(),
    )


def _forked(arguments: list[str], cwd: Path | None, file_size: int | None) -> subprocess.CompletedProcess[str]:
    server = _server(os.getpid())
    assert server.stdin is not None and server.stdout is not None
    request = {"arguments": arguments, "cwd": str(cwd or Path.cwd()), "file_size": file_size, "timeout": TIMEOUT}
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    return subprocess.CompletedProcess(arguments, **json.loads(server.stdout.readline()))


@cache
def _server(owner: int) -> subprocess.Popen[str]:
    """One for each process that tests run in; it ends when that one does, with its stdin."""
    return subprocess.Popen(
        [sys.executable, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment()
    )


def _environment() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1"}
