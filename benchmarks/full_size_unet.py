"""Measure the UNet of Stable Diffusion 1.5 in full size, with seeded random weights, as the fp16 artifact of each
format: memory and time of converting it, of loading it and of one sampler step, and the step's error.

    python benchmarks/full_size_unet.py [onnx] [coreml] [tflite] [--checkpoint FOLDER] [-o FILE.json]

One sampler step is two calls, one for each half of guidance. The reference is the original module in float32. Each
stage runs in its own process (full_size_stages.py); memory is the sum over its process tree, sampled every 50 ms. Exits
with 1 if a verdict fails. Needs 12 GB of disk in the current folder, and 7 GB of memory.
"""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from cost import run_and_watch
from rich.table import Table

from pocketdiffusion.cli.console import run, stdout
from pocketdiffusion.runtime.errors import ProofError

HERE = Path(__file__).parent
FORMATS = ("onnx", "coreml", "tflite")


def watch(stage: str, *arguments: str) -> dict[str, Any]:
    """Return the stage's cost, and its output under "found". If a stage measures its own seconds, these are used."""
    cost = run_and_watch([sys.executable, str(HERE / "full_size_stages.py"), stage, *arguments])
    found = json.loads(cost.output.splitlines()[-1])
    seconds, cpu_seconds = found.pop("seconds", cost.seconds), found.pop("cpu_seconds", cost.cpu_seconds)
    row = {"stage": stage, "cpu_seconds": cpu_seconds, "seconds": seconds, "peak_mb": cost.peak_mb}
    row = {key: value if isinstance(value, str) else round(value, 1) for key, value in row.items()}
    stdout().print(stage, *arguments[1:2], row["cpu_seconds"], "CPU s,", row["peak_mb"], "MB")
    return {**row, "found": found}


def measure(folder: str, format: str) -> list[dict[str, Any]]:
    """Run all stages of one format and return their rows."""
    rounding = watch("round", folder, format)
    rows = [watch("convert", folder, format), rounding, watch("load", folder, format)]
    rows.append(watch("step", folder, format, json.dumps(rounding["found"].pop("rounding_db"))))
    return [{"format": format, **row} for row in rows]


def main(
    formats: Annotated[list[str] | None, typer.Argument(help="onnx, coreml or tflite. Default: all three.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Folder that full_size.py wrote, to save time.")] = None,
    output: Annotated[Path, typer.Option("-o", help="JSON file for the figures.")] = Path("build/full_size_unet.json"),
) -> None:
    with TemporaryDirectory(dir=Path.cwd()) as scratch:
        if checkpoint is None:
            subprocess.run([sys.executable, HERE / "full_size.py", "write", scratch], check=True)
        else:
            (Path(scratch) / "sd15").symlink_to(checkpoint.resolve() / "sd15")
        rows = [{"format": None, **watch("record", scratch)}]
        for format in formats or FORMATS:
            rows += measure(scratch, format)
    table = Table("format", "stage", "CPU s", "s", "peak MB", "dB")
    for row in rows:
        decibels = ", ".join(f"{v['psnr_db']:.1f} of {v['floor_db']:.0f}" for v in row["found"].get("verdicts", []))
        table.add_row(str(row["format"] or "original"), *(str(row[key]) for key in COLUMNS), decibels)
    stdout().print(table)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(rows, indent=1) + "\n")
    failed = [v for row in rows for v in row["found"].get("verdicts", []) if not v["passed"]]
    if failed:
        raise ProofError(f"{len(failed)} checks failed, first {failed[0]['format']} {failed[0]['rung']}")


COLUMNS = ("stage", "cpu_seconds", "seconds", "peak_mb")


if __name__ == "__main__":
    run(lambda: typer.run(main))
