"""Measure the peak memory of an export: resident memory, summed over its process tree and sampled every 50 ms.

    python benchmarks/memory.py [MODEL ...] [--target generic] [-o FILE.json]

A model is any checkpoint that `export` accepts; `sd15` is Stable Diffusion 1.5 with seeded random weights of the real
shapes (4.3 GB), emitted without the gate, because recording its trajectories needs the memory of the original modules.
"""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from cost import run_and_watch
from rich.console import Console
from rich.table import Table

from pocketdiffusion.cli.console import run


def main(
    models: Annotated[list[str] | None, typer.Argument(help="Checkpoints to export. Default: emoji and sd15.")] = None,
    target: Annotated[str, typer.Option(help="Target to export for.")] = "pixel-8",
    output: Annotated[Path, typer.Option("-o", help="JSON file for the figures.")] = Path("build/memory.json"),
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
            cost = run_and_watch(command)
        rows.append(
            {
                "model": model,
                "target": target,
                "peak_mb": round(cost.peak_mb),
                "seconds": round(cost.seconds, 1),
                "cpu_seconds": round(cost.cpu_seconds, 1),
            }
        )
    table = Table(
        "model",
        "target",
        "peak MB",
        "seconds",
        "CPU seconds",
        title="export: sampled sum of resident memory over its processes",
    )
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    run(lambda: typer.run(main))
