"""What runs inside a stand-in: loads one graph by its runner, then answers each message with the graph's outputs.

    python worker.py PACKAGE [SITE]     PACKAGE: the folder pocketdiffusion; SITE: the stand-in's own libraries

Inside the emulator there are numpy and the engines only, so the packages are laid bare here: none of their __init__.py
is run, which would import the rest. The protocol has the process's own stdout; whatever else is printed goes to stderr.
"""

import os
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

BARE = ("pocketdiffusion", "pocketdiffusion.runtime", "pocketdiffusion.runtime.engines")


def lay_bare(package: Path) -> None:
    """Makes the packages importable, and nothing of them imported."""
    for name in BARE:
        module = ModuleType(name)
        module.__path__ = [str(package.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = module


def main(package: Path, site: list[str]) -> None:
    sys.path[:0] = site
    lay_bare(package)
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
        answer(complaint(error), {})
        return
    answer({"features": features()}, {})
    while True:
        try:
            _, inputs = frames.unpack(read)
        except EOFError:  # the other end is done
            return
        try:
            facts, outputs = {}, runner(inputs)
        except Exception as error:
            facts, outputs = complaint(error), {}
        answer(facts, outputs)


def load(request: dict[str, Any]) -> Any:
    """The runner of module `engine`, opened with its `path` and `spec`."""
    spec = import_module("pocketdiffusion.runtime.graph_spec")

    def tensors(rows: list[dict[str, Any]]) -> tuple[Any, ...]:
        return tuple(spec.TensorSpec(**{**row, "shape": tuple(row["shape"])}) for row in rows)

    graph = request["spec"]
    opened = spec.GraphSpec(graph["name"], tensors(graph["inputs"]), tensors(graph["outputs"]))
    return import_module(request["engine"]).open_runner(Path(request["path"]), opened)


def features() -> list[str]:
    """What the processor can do, in Linux's words for aarch64: asimdhp is float16 arithmetic, asimddp dot product."""
    words = Path("/proc/cpuinfo").read_text().partition("Features")[2].partition("\n")[0]
    return words.strip(" \t:").split()


def complaint(error: Exception) -> dict[str, str]:
    """The error, and whether a person is meant to read it as it stands."""
    kind = type(error).__name__
    known = kind in ("ProofError", "UserError")
    return {"kind": kind, "error": str(error) if known else f"{kind}: {' '.join(str(error).split())[:300]}"}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
