"""A graph that runs in a child process: if that crashes, hangs or does not start, the error is one clear line."""

import os
import select
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryFile
from time import monotonic
from typing import IO, Any
from weakref import finalize

from pocketdiffusion.runtime.devices.frames import Frame, pack, unpack
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.runner import Array, check_inputs

WORKER = Path(__file__).with_name("worker.py")
PACKAGE = Path(__file__).parents[2]  # the worker's folder of the package `pocketdiffusion`: it contains runtime/


@dataclass(frozen=True)
class Launch:
    """The command that starts a worker: `command` is put before the worker's own arguments, `site` after them.

    `title` is its name in errors, `seconds` the time limit for loading a graph and for each call.
    """

    title: str
    command: tuple[str, ...]
    site: tuple[str, ...]
    environment: Mapping[str, str]
    seconds: float


class ChildRunner:
    """A Runner. The process ends when the runner is freed.

    Calling it raises ValueError if inputs do not match `spec`; ProofError if the graph cannot be run, the process ends,
    or the time limit is exceeded.
    """

    def __init__(self, launch: Launch, engine: str, path: Path, spec: GraphSpec) -> None:
        """Start the process and open `path` there with `open_runner` of the module `engine`. Raise its ProofError or
        UserError, and ProofError if the process cannot be started, ends, or exceeds the time limit."""
        self.spec = spec
        self._launch = launch
        self._log = TemporaryFile()  # open as long as the process lives
        command = [*launch.command, str(WORKER), str(PACKAGE), *launch.site]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=dict(launch.environment),
                bufsize=0,
            )
        except OSError as error:
            raise ProofError(f"{launch.title}: cannot start {command[0]}: {error.strerror}") from None
        self._end = finalize(self, _end, self._process)
        facts, _ = self._ask({"engine": engine, "path": str(path.resolve()), "spec": asdict(spec)}, {})
        self.features = tuple(str(word) for word in facts["features"])

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        check_inputs(self.spec, inputs)
        _, outputs = self._ask({}, inputs)
        return outputs

    def _ask(self, facts: Mapping[str, Any], arrays: Mapping[str, Array]) -> Frame:
        until = monotonic() + self._launch.seconds
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            _write(self._process.stdin, pack(facts, arrays), until)
            answer, outputs = unpack(lambda size: _read(self._process.stdout, size, until))
        except TimeoutError:
            self._end()
            raise ProofError(
                f"{self._launch.title}: {self.spec.name} took longer than {self._launch.seconds:g} s: raise "
                "--limit, or use a smaller model"
            ) from None
        except (OSError, EOFError, ValueError, KeyError):
            raise ProofError(f"{self._launch.title}: {self.spec.name} {self._last_words()}") from None
        if "error" in answer:
            if answer["kind"] == "UserError":
                raise UserError(str(answer["error"]))
            raise ProofError(f"{self._launch.title}: {answer['error']}")
        return answer, outputs

    def _last_words(self) -> str:
        """Return how the process ended, and the last line of its stderr."""
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._end()
            return "sent an answer that cannot be read"
        how = f"crashed ({signal.Signals(-code).name})" if code < 0 else f"ended with code {code}"
        self._log.seek(0)
        said = [line.strip() for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        return f"{how}: {said[-1][:300]}" if said else f"{how} without a message"


def _read(pipe: IO[bytes] | None, size: int, until: float) -> bytes:
    assert pipe is not None
    parts, left = [], size
    while left:
        if not select.select([pipe], [], [], max(0.0, until - monotonic()))[0]:
            raise TimeoutError
        part = os.read(pipe.fileno(), min(left, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _write(pipe: IO[bytes], raw: bytes, until: float) -> None:
    os.set_blocking(pipe.fileno(), False)
    view = memoryview(raw)
    while view:
        if not select.select([], [pipe], [], max(0.0, until - monotonic()))[1]:
            raise TimeoutError
        view = view[os.write(pipe.fileno(), view) :]


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
