"""TFLite artifacts on LiteRT's GPU accelerator, ML Drift, the delegate of Android apps.

It runs a complete graph or none. Arithmetic is float32: the software device has no float16 in its shaders.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from pocketdiffusion.runtime.devices.compiled import CompiledRunner, check_signature, compile_model, reason
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.runner import Runner

REFUSES = "the GPU delegate refuses"
_REFUSED = "not supported by GPU delegate:"
_DEVICE = "Selected adapter:"


def open_runner(path: Path, spec: GraphSpec) -> Runner:
    """Open `path` on the GPU delegate. Raise UserError if LiteRT is not installed; ProofError if the delegate refuses
    operators, which it names, or the file cannot be read or does not match `spec`."""
    with _captured_stderr() as log:
        try:
            model = compile_model(path, {"accelerator": "GPU", "gpu": {"enforce_f32": True}})
            complete = bool(model.is_fully_accelerated())
        except RuntimeError as error:
            raise ProofError(f"{path}: {_why(_said(log)) or reason(error)}") from None
        said = _said(log)
    if not complete:
        raise ProofError(f"{path}: {_why(said) or 'the GPU delegate leaves some operators to the CPU'}")
    if _DEVICE not in said:
        raise ProofError(f"{path}: LiteRT found no Vulkan device")
    check_signature(path, spec, model)
    return CompiledRunner(spec, model)


def refused(said: str) -> dict[str, str]:
    """Return {operator: reason} of the operators that the delegate refuses, parsed from its output `said`."""
    lines = said.partition(_REFUSED)[2].splitlines()[1:]
    found: dict[str, str] = {}
    for line in lines:
        match = re.match(r"^([A-Z0-9_]+): ?(.*)$", line)
        if match is None:
            break
        found[match[1]] = match[2].removeprefix(f"{match[1]}: ").rstrip(".")
    return found


def _why(said: str) -> str:
    unknown = re.search(r"Didn't find op for builtin opcode '(\w+)' version '(\d+)'", said)
    if unknown:
        return f"LiteRT knows no {unknown[1]} of version {unknown[2]}"
    failed = re.search(r"Failed to create \S*DelegateKernel\S*: (?:[A-Z_]+: )?([^\n;]*)", said)
    if failed:
        return f"{REFUSES} this graph ({failed[1].rstrip('. ')})"
    operators = [f"{name} ({why})" if why else name for name, why in refused(said).items()]
    return f"{REFUSES} {', '.join(operators)}" if operators else ""


@contextmanager
def _captured_stderr() -> Iterator[IO[bytes]]:
    """Redirect the process's stderr, where LiteRT prints, to a file. Its content is written to stderr afterwards."""
    kept = os.dup(2)
    with TemporaryFile() as log:
        try:
            os.dup2(log.fileno(), 2)
            yield log
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.write(2, _said(log).encode())


def _said(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read().decode(errors="replace")
