"""Compare methods to choose the value range of an activation, and measure the memory of calibration.

    python benchmarks/calibration.py [-o FILE.json]

Ranges: every convolution and linear layer of the built-in model reads integers (weights int8), with ranges chosen from
the calibration prompts by each method. The figure is the PSNR of each component's outputs on the search prompts (first,
middle and last call), teacher-forced, in torch. Memory: the peak of a process that draws and counts 4 to 64 prompts.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from pocketdiffusion.cli.console import print_line, run
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.families import components
from pocketdiffusion.export.matrices import weights_of
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.export.prompts import requests
from pocketdiffusion.export.quantization import calibrate, open_quantized
from pocketdiffusion.export.reference.record import record
from pocketdiffusion.quantize.measure.activation_stats import ActivationStatistics
from pocketdiffusion.quantize.observers import HEADROOM, METHODS, choose_range
from pocketdiffusion.quantize.qparams import BITS, ValueRange
from pocketdiffusion.quantize.scheme import Plan, Scheme
from pocketdiffusion.runtime.bundle.verdicts import Kind
from pocketdiffusion.runtime.memory import own_peak_bytes
from pocketdiffusion.runtime.verify.check import NONE, Check
from pocketdiffusion.runtime.verify.gate import judge_graph
from pocketdiffusion.runtime.verify.recording import Trajectory, first_middle_last_steps

ROOM = {8: (1.0, 1.2, 1.5), 16: (1.0, 2.0, 4.0)}  # factors on the range that a method chooses
COUNTS = (4, 8, 16, 64)  # prompts; beyond 16 they repeat


def main(
    output: Annotated[Path, typer.Option("-o", help="JSON file for the figures.")] = Path("build/calibration.json"),
    only_calibrate: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    torch.set_num_threads(1)
    checkpoint = open_checkpoint("emoji")
    parts = components(checkpoint)
    if only_calibrate is not None:
        calibrate(checkpoint, parts, list(islice(cycle(requests("calibration")), only_calibrate)))
        print(own_peak_bytes() / 1e6)
        return
    memory = [{"prompts": count, "peak_mb": measure_memory(count)} for count in COUNTS]
    statistics = calibrate(checkpoint, parts, requests("calibration"), print_line, counting=True).statistics
    trajectories = [first_middle_last_steps(t) for t in record(checkpoint, parts, requests("search"))]
    ranges = [row for part in parts for row in measure_ranges(part, statistics, trajectories)]
    show(ranges, memory)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({"ranges": ranges, "memory": memory}, indent=1) + "\n")


def measure_memory(count: int) -> float:
    """Return the peak memory in MB (1e6 bytes) of a child process that calibrates with `count` prompts."""
    command = [sys.executable, __file__, "--only-calibrate", str(count)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def measure_ranges(
    part: Component, statistics: ActivationStatistics, trajectories: Sequence[Trajectory]
) -> list[dict[str, Any]]:
    """Return a row for each number of bits, method and factor."""
    rows = []
    name = part.spec.name
    for activation, bits in BITS.items():
        for method in METHODS:
            for room in ROOM[bits]:
                inputs = {}
                for weight, histogram in statistics.inputs[name].items():
                    chosen = choose_range(histogram, method, bits)
                    factor = room / (HEADROOM[bits] if method == "minmax" else 1)
                    inputs[weight] = ValueRange(chosen.low * factor, chosen.high * factor)
                integers = Scheme("linear", 8, activation=activation)  # type: ignore[arg-type]
                schemes = {n: integers if n in inputs else Scheme("linear", 8) for n in weights_of(part)}
                runner = open_quantized(part, (), Plan("calibration", schemes, inputs))
                reports = judge_graph(Check(Kind.COMPARED, NONE), runner, trajectories)
                worst = min(reports, key=lambda report: report.psnr_db)
                figures = {"median_db": median(worst.case_db), "minimum_db": worst.psnr_db}
                rows.append({"graph": name, "activation": activation, "method": method, "room": room, **figures})
    return rows


def show(ranges: Sequence[Mapping[str, Any]], memory: Sequence[Mapping[str, Any]]) -> None:
    table = Table("graph", "integers", "range", "times", "median dB", "minimum dB")
    for row in ranges:
        figures = (f"{row['median_db']:.1f}", f"{row['minimum_db']:.1f}")
        table.add_row(row["graph"], row["activation"], row["method"], f"{row['room']:g}", *figures)
    Console(width=100).print(table)
    table = Table("prompts", "peak MB")
    for row in memory:
        table.add_row(str(row["prompts"]), f"{row['peak_mb']:.0f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    run(lambda: typer.run(main))
