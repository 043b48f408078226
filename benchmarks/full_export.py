"""Measure memory and time of a whole export through the gate, by stage.

    python benchmarks/full_export.py [MODEL] [--target pixel-8] [--format NAME] [--recipe NAME] [--split-unet N] \\
        [--vae-tiles exact] [--proof quick] [--max-memory 5GB] [--recordings DIR] [--bundle DIR] [-o FILE.json]

MODEL is any checkpoint that `export` accepts; `sd15`, the default, is Stable Diffusion 1.5 with seeded random weights
of the real shapes in float16 (2.1 GB of disk, and 5 GB for the export); `narrow` has the same modules with few
channels. Memory is summed over the process tree and sampled every 100 ms: anonymous memory, which the system cannot
drop, and resident pages of files beside it. Each stage is printed when it ends, so that an interrupted run has its
figures too. With `--recordings`, a second run reads the drawings of the first.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Annotated

import psutil
import typer
from rich.table import Table

from pocketdiffusion.cli.arguments import parse_bytes
from pocketdiffusion.cli.console import print_line, run, stdout
from pocketdiffusion.runtime.errors import ProofError

CHILD = """
import json
import sys
from pathlib import Path
from pocketdiffusion.build import export
from pocketdiffusion.choices import ExportOptions
model, target, out, options = sys.argv[1:]
options = json.loads(options)
options["recordings"] = options["recordings"] and Path(options["recordings"])
export(model, target, Path(out), ExportOptions(**options), lambda line: print(line, flush=True))
"""


@dataclass
class Stage:
    """One stage of the export: its largest anonymous memory and pages of files in MB (1e6 bytes), and its time."""

    name: str
    anonymous_mb: float = 0
    file_mb: float = 0
    seconds: float = 0
    cpu_seconds: float = 0


def watch(command: list[str]) -> tuple[list[Stage], str]:
    """Run `command`, which prints a line when a stage begins, and return its stages, and its error or "". Stages of one
    name, such as the prompts of a recording, follow each other and are counted together."""
    stages = [Stage("starting")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stderr is not None
        errors: list[str] = []
        Thread(target=lambda: errors.extend(child.stderr or ()), daemon=True).start()
        Thread(target=read_stages, args=(stages, child.stdout), daemon=True).start()
        root, past, cpu = psutil.Process(child.pid), time.perf_counter(), 0.0
        while child.poll() is None:
            anonymous, file, now_cpu = sample(root)
            now, stage = time.perf_counter(), stages[-1]
            stage.anonymous_mb, stage.file_mb = max(stage.anonymous_mb, anonymous), max(stage.file_mb, file)
            stage.seconds += now - past
            stage.cpu_seconds += max(0.0, now_cpu - cpu)
            past, cpu = now, max(cpu, now_cpu)
            time.sleep(0.1)
    return stages, "".join(errors).strip()[-300:] if child.returncode else ""


def read_stages(stages: list[Stage], lines: Iterable[str]) -> None:
    """Begin a stage at each line, unless it is about the same stage as the line before, and print the one that
    ended."""
    for line in lines:
        name = line.strip().partition(": prompt")[0]
        if name != stages[-1].name:
            ended = stages[-1]
            print_line(f"{ended.name}: {ended.anonymous_mb:.0f} MB, {ended.cpu_seconds:.0f} CPU s")
            stages.append(Stage(name))


def sample(root: psutil.Process) -> tuple[float, float, float]:
    """Return anonymous memory and pages of files (MB), and CPU seconds, of a process and all of its descendants."""
    anonymous = file = cpu = 0.0
    try:
        for process in (root, *root.children(recursive=True)):
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
                times = process.cpu_times()
            except (OSError, psutil.NoSuchProcess):
                continue
            fields = dict(line.split(":", 1) for line in status.splitlines())
            anonymous += int(fields.get("RssAnon", "0 kB").split()[0]) * 1024 / 1e6
            file += int(fields.get("RssFile", "0 kB").split()[0]) * 1024 / 1e6
            cpu += times.user + times.system + times.children_user + times.children_system
    except psutil.NoSuchProcess:
        pass
    return anonymous, file, cpu


def main(
    model: Annotated[str, typer.Argument(help="Checkpoint to export.")] = "sd15",
    target: Annotated[str, typer.Option(help="Target to export for.")] = "pixel-8",
    proof: Annotated[str, typer.Option(help="quick or full.")] = "quick",
    format: Annotated[str | None, typer.Option(help="The only format to write.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Recipe of the weights.")] = None,
    split_unet: Annotated[int | None, typer.Option(help="Graphs that the UNet becomes.")] = None,
    vae_tiles: Annotated[str | None, typer.Option(help="How the VAE decodes: none, exact or blended.")] = None,
    max_memory: Annotated[str | None, typer.Option(help="Memory that the export may use, such as 5GB.")] = None,
    recordings: Annotated[Path | None, typer.Option(help="Folder of recordings to read and write.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Folder that full_size.py wrote, to save time.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Folder where the bundle stays. Default: it is deleted.")] = None,
    output: Annotated[Path, typer.Option("-o", help="JSON file for the figures.")] = Path("build/full_export.json"),
) -> None:
    with TemporaryDirectory(dir=Path.cwd()) as scratch:
        if model == "sd15":
            if checkpoint is None:
                script = Path(__file__).parent / "full_size.py"
                subprocess.run([sys.executable, script, "write", scratch, "float16"], check=True)
            model = str((checkpoint or Path(scratch)) / "sd15")
        elif model == "narrow":
            subprocess.run([sys.executable, Path(__file__).parent / "full_size.py", "narrow", scratch], check=True)
            model = str(Path(scratch) / "narrow")
        print_line(f"{os.cpu_count()} processors, {psutil.virtual_memory().total / 1e9:.0f} GB of memory")
        options = {
            "proof": proof,
            "format": format,
            "recipe": recipe,
            "split_unet": split_unet,
            "vae_tiles": vae_tiles,
            "max_memory": parse_bytes(max_memory),
            "recordings": None if recordings is None else str(recordings.absolute()),
        }
        out = (bundle or Path(scratch) / "bundle").absolute()
        stages, error = watch([sys.executable, "-c", CHILD, model, target, str(out), json.dumps(options)])
    table = Table("stage", "anonymous MB", "files MB", "CPU s", "s", title=f"export for {target}, {proof} proof")
    total = Stage(
        "whole",
        max(stage.anonymous_mb for stage in stages),
        max(stage.file_mb for stage in stages),
        sum(stage.seconds for stage in stages),
        sum(stage.cpu_seconds for stage in stages),
    )
    for stage in (*stages, total):
        figures = (stage.anonymous_mb, stage.file_mb, stage.cpu_seconds, stage.seconds)
        table.add_row(stage.name, *(f"{figure:.0f}" for figure in figures))
    stdout().print(table)
    output.parent.mkdir(parents=True, exist_ok=True)
    options["recordings"] = recordings is not None  # no path of this machine goes into the file
    for stage in stages:
        stage.name = stage.name.partition(f" in {recordings and recordings.absolute()}")[0]
    record = {"target": target, "options": options, "stages": [asdict(stage) for stage in (*stages, total)]}
    output.write_text(json.dumps(record, indent=1) + "\n")
    if error:
        raise ProofError(f"the export failed: {error}")


if __name__ == "__main__":
    run(lambda: typer.run(main))
