"""Measure the memory of an ONNX graph in the Android app's engine, on the JVM: onnxruntime's Java API with its
defaults, and without its arena and memory pattern, as OrtEngine.kt opens graphs.

    python benchmarks/android_memory.py FILE.onnx [FILE.onnx ...] [-o FILE.json]

Inputs of the graphs must be float32 of fixed sizes. It needs a JDK and Maven. Memory is anonymous memory, sampled every
2 ms, beyond that of the JVM before the file was opened.
"""

import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.table import Table

from pocketdiffusion.cli.console import run, stdout

HERE = Path(__file__).parent
WAYS = ("defaults", "app")


def fetch_library(folder: Path) -> Path:
    """Copy the jar of onnxruntime that the app is built with into `folder`, and return it."""
    options = ["-q", "-pl", "engine", "-DincludeArtifactIds=onnxruntime", f"-DoutputDirectory={folder}"]
    subprocess.run(
        ["mvn", "-B", *options, "dependency:copy-dependencies"], cwd=HERE.parent / "android_demo", check=True
    )
    return next(folder.glob("onnxruntime-*.jar"))


def measure(library: Path, file: Path, way: str) -> dict[str, Any]:
    """Return the memory in MB and the seconds of a graph, opened in this way."""
    command = ["java", "-cp", str(library), str(HERE / "OrtMemory.java"), str(file), way]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    opening, *calls = [[float(number) for number in line.split()] for line in printed]
    return {
        "graph": file.parent.name,
        "way": way,
        "opening_mb": opening[0] * 1.024e-3,
        "opened_mb": opening[1] * 1.024e-3,
        "calls_mb": max(call[0] for call in calls) * 1.024e-3,
        "kept_mb": calls[-1][1] * 1.024e-3,
        "seconds": min(call[2] for call in calls),
    }


def main(
    files: Annotated[list[Path], typer.Argument(help="ONNX files of graphs.")],
    output: Annotated[Path, typer.Option("-o", help="JSON file for the figures.")] = Path("build/android_memory.json"),
) -> None:
    with TemporaryDirectory() as scratch:
        library = fetch_library(Path(scratch))
        rows = [measure(library, file.absolute(), way) for file in files for way in WAYS]
    table = Table("graph", "way", "while it opens, MB", "opened, MB", "calls, MB", "kept, MB", "fastest call, s")
    for row in rows:
        numbers = (f"{row[name]:.0f}" for name in ("opening_mb", "opened_mb", "calls_mb", "kept_mb"))
        table.add_row(row["graph"], row["way"], *numbers, f"{row['seconds']:.2f}")
    stdout().print(table)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    run(lambda: typer.run(main))
