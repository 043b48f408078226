"""The program inside a stand-in: it opens one graph by its runner, then answers each message with the graph's outputs.

    python worker.py PACKAGE [SITE]     PACKAGE: the folder pocketdiffusion; SITE: the stand-in's own libraries

Inside the emulator only numpy and the engines are installed, so the packages are registered here without running their
__init__.py, which would import more. The protocol uses the process's stdout; anything else is printed to stderr.
"""

import os
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

BARE = ("pocketdiffusion", "pocketdiffusion.runtime", "pocketdiffusion.runtime.engines")


def skip_package_init(package: Path) -> None:
    """Make the packages importable without running their __init__.py."""
    for name in BARE:
        module = ModuleType(name)
        module.__path__ = [str(package.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = module


def main(package: Path, site: list[str]) -> None:
    sys.path[:0] = site
    skip_package_init(package)
    frames = import_module("pocketdiffusion.runtime.devices.frames")
    given, taken = os.fdopen(0, "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def read(size: int) -> bytes:
        raw = given.read(size)
        if len(raw) != size:
            raise EOFError
        return raw

    def answer(facts: dict[str, Any], arrays: dict[str, Any]) -> None:
        taken.write(frames.pack(facts, arrays))
        taken.flush()

    request, _ = frames.unpack(read)
    try:
        runner = load(request)
    except Exception as error:
        answer(describe_error(error), {})
        return
    answer({"features": features()}, {})
    while True:
        try:
            _, inputs = frames.unpack(read)
        except EOFError:  # the other end has closed the pipe
            return
        try:
            facts, outputs = {}, runner(inputs)
        except Exception as error:
            facts, outputs = describe_error(error), {}
        answer(facts, outputs)


def load(request: dict[str, Any]) -> Any:
    """Open the request's `path` and `spec` with the module `engine`, and return the runner."""
    spec = import_module("pocketdiffusion.runtime.graph_spec")

    def tensors(rows: list[dict[str, Any]]) -> tuple[Any, ...]:
        return tuple(spec.TensorSpec(**{**row, "shape": tuple(row["shape"])}) for row in rows)

    graph = request["spec"]
    opened = spec.GraphSpec(graph["name"], tensors(graph["inputs"]), tensors(graph["outputs"]))
    return import_module(request["engine"]).open_runner(Path(request["path"]), opened)


def features() -> list[str]:
    """Return the processor's features by Linux's names for aarch64: asimdhp is float16 arithmetic, asimddp dot
    product."""
    words = Path("/proc/cpuinfo").read_text().partition("Features")[2].partition("\n")[0]
    return words.strip(" \t:").split()


def describe_error(error: Exception) -> dict[str, str]:
    """Return the error's kind and message. Errors that are not for people get their class's name before it."""
    kind = type(error).__name__
    known = kind in ("ProofError", "UserError")
    return {"kind": kind, "error": str(error) if known else f"{kind}: {' '.join(str(error).split())[:300]}"}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
