"""Peak memory of an export: the sum over its process tree of resident memory, sampled every 50 ms.

    python benchmarks/memory.py [MODEL ...] [--target generic] [-o FILE.json]

A model is anything that `export` takes; `sd15` is Stable Diffusion 1.5 with seeded random weights of the real shapes
(4.3 GB), emitted without the gate, as recording its trajectories takes the memory of the original modules.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import psutil
import typer
from rich.console import Console
from rich.table import Table

from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.terminal import run

MB = 1e6


def peak_of(command: list[str]) -> tuple[float, float]:
    """Runs `command`. Its peak in MB and its seconds. Raises ProofError where it fails."""
    start, peak = time.perf_counter(), 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        root = psutil.Process(child.pid)
        while child.poll() is None:
            peak = max(peak, tree_memory(root))
            time.sleep(0.05)
        output = child.stdout.read() if child.stdout else ""
    if child.returncode:
        raise ProofError(f"{' '.join(command[-6:])} failed: {output.strip().splitlines()[-1]}")
    return peak / MB, time.perf_counter() - start


def tree_memory(root: psutil.Process) -> float:
    """Resident bytes of a process and all below it."""
    total = 0.0
    try:
        for process in (root, *root.children(recursive=True)):
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
    except psutil.NoSuchProcess:
        return total
    return total


def main(
    models: Annotated[list[str] | None, typer.Argument(help="what to export; by default emoji and sd15")] = None,
    target: Annotated[str, typer.Option(help="a phone")] = "pixel-8",
    output: Annotated[Path, typer.Option("-o", help="the figures as JSON")] = Path("build/memory.json"),
) -> None:
    rows = []
    for model in models or ["emoji", "sd15"]:
        with TemporaryDirectory(dir=Path.cwd()) as scratch:
            if model == "sd15":
                subprocess.run([sys.executable, Path(__file__).parent / "full_size.py", "write", scratch], check=True)
                command = [sys.executable, str(Path(__file__).parent / "full_size.py"), "emit", scratch, target]
            else:
                out = str(Path(scratch) / "bundle")
                command = [sys.executable, "-m", "pocketdiffusion", "export", model, "--target", target, "-o", out]
            peak, seconds = peak_of(command)
        rows.append({"model": model, "target": target, "peak_mb": round(peak), "seconds": round(seconds, 1)})
    table = Table(
        "model", "target", "peak MB", "seconds", title="export: sampled sum of resident memory over its processes"
    )
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    run(lambda: typer.run(main))
