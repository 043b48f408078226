"""Measure peak memory and time of one attention, with `chunked_attention` and without, for growing latents.

    python benchmarks/attention_memory.py [-o FILE.json] [--plot FILE.svg]

The graph is the self-attention of Stable Diffusion 1.5's first level (320 channels, 8 heads), written by the project's
own backends and run by its own runners on one thread. Peaks are measured in a child process that opens the graph and
runs it once, minus the peak of the same graph on latents of 8x8. Times are processor times of both graphs, called in
turn in one process. In profile ort the chunked form is onnxruntime's MultiHeadAttention.
"""

import json
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from pocketdiffusion.cli.console import run
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec
from pocketdiffusion.runtime.memory import own_peak_bytes
from pocketdiffusion.runtime.runner import Runner

CHANNELS, HEADS = 320, 8
BASE, LATENTS = 8, (32, 48, 64, 80, 96)
ROUNDS = 5
# Format, profile, the rewrite without chunks (None if there is no such form), the rewrite with chunks.
CASES = (
    ("onnx", "std", "fused_attention", "chunked_attention"),
    ("onnx", "ort", None, "chunked_attention"),
    ("tflite", "std", "batched_attention", "chunked_attention"),
)


def spec_of(latent: int) -> GraphSpec:
    """Return a specification with one input and one output, both [1, tokens, channels]."""
    shape = (1, latent**2, CHANNELS)
    return GraphSpec("attention", (TensorSpec("x", shape, "float32"),), (TensorSpec("y", shape, "float32"),))


def write(folder: Path, format: str, profile: str, rewrite: str, latent: int) -> Path:
    """Write the artifact below `folder` and return its path."""
    import torch
    from diffusers.models.attention_processor import Attention
    from safetensors.torch import save_file

    from pocketdiffusion.export.backends.emission import emit_floats
    from pocketdiffusion.export.checkpoints.safetensors_header import read_header
    from pocketdiffusion.export.component import Component
    from pocketdiffusion.export.targets import Artifact

    def build() -> Attention:
        return Attention(CHANNELS, heads=HEADS, dim_head=CHANNELS // HEADS)

    def example(seed: int) -> dict[str, torch.Tensor]:
        return {"x": torch.randn(1, latent**2, CHANNELS, generator=torch.Generator().manual_seed(seed))}

    home = folder / f"{format}_{profile}_{rewrite}_{latent}"
    home.mkdir()
    torch.manual_seed(0)
    save_file(build().state_dict(), home / "weights.safetensors")
    part = Component(spec_of(latent), build, read_header(home / "weights.safetensors"), example, {"attention": 1})
    return home / emit_floats(part, Artifact(format, profile, "fp32", "cpu", (rewrite,)), home, open_batch=False).path


def open_one(path: Path, format: str, latent: int) -> Runner:
    runner: Runner = import_module(f"pocketdiffusion.runtime.engines.{format}").open_runner(
        path, spec_of(latent), threads=1
    )
    return runner


def inputs(latent: int) -> dict[str, Any]:
    return {"x": np.random.default_rng(0).standard_normal((1, latent**2, CHANNELS), dtype=np.float32)}


def child(verb: str, format: str, latent: int, paths: list[Path]) -> Any:
    """Run `print_peak` or `print_times` in a child process and return the parsed output. Raises ProofError if it
    fails."""
    command = [sys.executable, __file__, verb, format, str(latent), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ProofError(f"{paths[0]}: {(done.stderr.strip() or 'killed').splitlines()[-1]}")
    return json.loads(done.stdout)


def print_peak(format: str, latent: int, path: Path) -> None:
    """Print the peak of resident memory in MB after one run."""
    open_one(path, format, latent)(inputs(latent))
    print(own_peak_bytes() / 1e6)


def print_times(format: str, latent: int, paths: list[Path]) -> None:
    """Print the processor seconds of each graph, called `ROUNDS` times in turn, after one warm-up run of each."""
    runners, feeds = [open_one(path, format, latent) for path in paths], inputs(latent)
    seconds: list[list[float]] = []
    for _ in range(1 + ROUNDS):
        seconds.append([])
        for runner in runners:
            start = time.process_time()
            runner(feeds)
            seconds[-1].append(time.process_time() - start)
    print(json.dumps(seconds[1:]))


def measure(folder: Path, format: str, profile: str, without: str | None, chunked: str) -> dict[str, Any]:
    """Return, for both forms, MB above the base and the exponent of growth, and the time of the chunked form
    relative to the other."""
    forms = {"chunked": chunked, **({"without": without} if without else {})}
    row: dict[str, Any] = {"format": format, "profile": profile, "mb": {form: [] for form in forms}, "times": []}
    base = {
        form: child("peak", format, BASE, [write(folder, format, profile, rewrite, BASE)])
        for form, rewrite in forms.items()
    }
    for latent in LATENTS:
        paths = {form: write(folder, format, profile, rewrite, latent) for form, rewrite in forms.items()}
        for form, path in paths.items():
            row["mb"][form].append(round(child("peak", format, latent, [path]) - base[form], 1))
        if without:
            pairs = child("times", format, latent, [paths["chunked"], paths["without"]])
            row["times"].append(round(median(one / other for one, other in pairs), 3))
    row["growth"] = {form: round(exponent(mb), 2) for form, mb in row["mb"].items()}
    return row


def exponent(mb: list[float]) -> float:
    """Return the exponent of the power law in the number of tokens: the slope between logarithms, by least squares."""
    tokens = np.square(np.array(LATENTS, np.float64))
    return float(np.polyfit(np.log(tokens), np.log(mb), 1)[0])


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    tokens = [latent**2 for latent in LATENTS]
    for row, colour in zip(rows, ("tab:blue", "tab:green", "tab:orange"), strict=True):
        for form, style in (("without", "o--"), ("chunked", "o-")):
            if form in row["mb"]:
                label = f"{row['format']} {row['profile']}, {form}: tokens^{row['growth'][form]}"
                axes.loglog(tokens, row["mb"][form], style, color=colour, label=label)
    axes.set_xticks(tokens, [f"{latent}x{latent}" for latent in LATENTS])
    axes.minorticks_off()
    axes.set(xlabel="latents", ylabel="MB above the base", title="One attention, 320 channels, 8 heads, float32")
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main(
    output: Annotated[Path, typer.Option("-o", help="JSON file for the figures.")] = Path(
        "build/attention_memory.json"
    ),
    picture: Annotated[Path, typer.Option("--plot", help="File for the plot of memory.")] = Path(
        "build/attention_memory.svg"
    ),
) -> None:
    with TemporaryDirectory() as scratch:
        rows = [measure(Path(scratch), *case) for case in CASES]
    titles = [f"{latent}x{latent}" for latent in LATENTS]
    table = Table(
        "graph",
        "form",
        *titles,
        "growth",
        title="peak of one attention, MB above the peak at 8x8; growth is the power of tokens",
    )
    for row in rows:
        for form, mb in row["mb"].items():
            name = f"{row['format']} {row['profile']}"
            table.add_row(name, form, *(f"{value:.0f}" for value in mb), str(row["growth"][form]))
        if row["times"]:
            table.add_row(name, "time over without", *map(str, row["times"]), "")
    Console().print(table)
    for path in (output, picture):
        path.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({"latents": LATENTS, "rows": rows}, indent=1) + "\n")
    plot(rows, picture)


def dispatch() -> None:
    match sys.argv[1:]:
        case ["peak", format, latent, path]:
            print_peak(format, int(latent), Path(path))
        case ["times", format, latent, *paths]:
            print_times(format, int(latent), [Path(path) for path in paths])
        case _:
            typer.run(main)


if __name__ == "__main__":
    run(dispatch)
