"""Measure the anonymous memory of onnxruntime while it opens a graph, holds it, and after it was closed: graphs of
eight layers of one size, beside what export/backends/onnx/memory.py counts.

    python benchmarks/loading_memory.py [-o FILE.json]

Each graph is opened twice, each time in a process of its own: with glibc's own thresholds, and as the runtime opens it
(`runtime/memory.py`, returning_large_blocks). Memory is RssAnon, sampled every 2 ms from another process, less what the
process held before; MB are of 1e6 bytes.
"""

import json
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from subprocess import PIPE, Popen
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import onnx
import typer
from drawing_memory import SECONDS, anonymous_bytes
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

from pocketdiffusion.cli.console import run
from pocketdiffusion.export.backends.onnx.memory import count_memory
from pocketdiffusion.runtime.engines.onnx import open_runner
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec
from pocketdiffusion.runtime.memory import return_freed_memory, returning_large_blocks

LAYERS = 8
SHAPES = {"Conv": (1024, 1024, 3, 3), "MatMul": (3072, 3072)}  # of a weight: 37.7 MB in float32
INPUTS = {"Conv": (1, 1024, 16, 16), "MatMul": (256, 3072)}
MODES: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "glibc's own": nullcontext,
    "as opened": returning_large_blocks,
}


def write(path: Path, operator: str, dtype: str) -> None:
    """Write a chain of `operator` with its weights stored in `dtype` in another file, each behind a Cast if it is
    float16."""
    rng = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for layer in range(LAYERS):
        values = (rng.standard_normal(SHAPES[operator], np.float32) * 0.02).astype(dtype)
        weights.append(numpy_helper.from_array(values, f"w{layer}"))
        used = f"w{layer}"
        if dtype == "float16":
            nodes.append(helper.make_node("Cast", [used], [f"{used}_32"], to=TensorProto.FLOAT))
            used = f"{used}_32"
        name = "y" if layer == LAYERS - 1 else f"h{layer}"
        facts = {"kernel_shape": [3, 3], "pads": [1] * 4} if operator == "Conv" else {}
        nodes.append(helper.make_node(operator, [last, used], [name], **facts))
        last = name
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, INPUTS[operator]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "layers", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    model = onnx.shape_inference.infer_shapes(model)
    onnx.save(model, str(path), save_as_external_data=True, location=f"{path.name}_data", size_threshold=0)


def hold(path: Path, operator: str, mode: str) -> None:
    """Open, call and close a graph, and print the time and the anonymous memory at each point; runs in a child."""
    import onnxruntime  # noqa: F401  # its own code is not counted

    spec = GraphSpec(
        "layers",
        (TensorSpec("x", INPUTS[operator], "float32"),),
        (TensorSpec("y", INPUTS[operator], "float32"),),
    )
    given = {"x": np.ones(INPUTS[operator], np.float32)}
    return_freed_memory()

    def mark(point: str) -> None:
        time.sleep(0.1)
        print(time.monotonic(), anonymous_bytes(), point, flush=True)

    mark("begin")
    with MODES[mode]():
        runner = open_runner(path, spec)
    mark("opened")
    runner(given)
    mark("called")
    del runner
    mark("closed")


def watch(path: Path, operator: str, mode: str) -> dict[str, float]:
    """Return the MB of the process in `hold`: the largest while it opens, and at each point."""
    samples: list[tuple[float, int]] = []
    with Popen([sys.executable, __file__, "hold", str(path), operator, mode], stdout=PIPE, text=True) as child:
        while child.poll() is None:
            try:
                samples.append((time.monotonic(), anonymous_bytes(Path(f"/proc/{child.pid}/status"))))
            except (OSError, IndexError):
                pass  # it has just ended
            time.sleep(SECONDS)
        assert child.stdout is not None
        marks = {point: (float(when), int(size)) for when, size, point in map(str.split, child.stdout)}
    if child.returncode:
        raise ProofError(f"onnxruntime could not open {path}")
    begun, before = marks["begin"]
    opening = max(size for when, size in samples if begun <= when <= marks["opened"][0])
    found = {"opening": opening, **{point: size for point, (_, size) in marks.items() if point != "begin"}}
    return {point: round((size - before) / 1e6, 1) for point, size in found.items()}


def main(
    output: Annotated[Path, typer.Option("-o", help="JSON file for the figures.")] = Path("build/loading_memory.json"),
) -> None:
    columns = ("layers", "stored", "memory", "weights", "loading, counted", "loading", "opened", "called", "closed")
    table = Table(*columns, title="onnxruntime opens a graph: anonymous memory in MB")
    rows = []
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=output.parent) as scratch:
        for operator in SHAPES:
            for dtype in ("float16", "float32"):
                path = Path(scratch) / f"{operator}_{dtype}.onnx"
                write(path, operator, dtype)
                counted = count_memory(path)
                assert counted.weights_bytes is not None and counted.loading_bytes is not None
                for mode in MODES:
                    found = watch(path, operator, mode)
                    row = {"layers": operator, "stored": dtype, "memory": mode, **found}
                    rows.append({**row, "weights": counted.weights_bytes, "counted": counted.loading_bytes})
                    sizes = (counted.weights_bytes / 1e6, counted.loading_bytes / 1e6, *found.values())
                    table.add_row(operator, dtype, mode, *(f"{size:.0f}" for size in sizes))
    Console().print(table)
    output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["hold"]:
        hold(Path(sys.argv[2]), sys.argv[3], sys.argv[4])
    else:
        run(lambda: typer.run(main))
