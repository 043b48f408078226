"""Measure the memory of one call of Stable Diffusion 1.5's VAE decoder, whole and in stripes (`tiled_decoder`).

    python benchmarks/decoder_memory.py [--format onnx] [--stripes 0,4,8,16] [--latents 64] [-o FILE.json]

The decoder has Stable Diffusion 1.5's real shapes and seeded random weights, stored as float16, with the rewrites of a
phone of that format; 0 stripes is the decoder without the rewrite. Each row is written and called in processes of its
own. "predicted" is `count_memory`'s activations, "measured" the largest anonymous memory (RssAnon, sampled every 2 ms)
during the first call, less that of the process after the graph was opened. A digest shows that calls had one result up
to rounding: the picture's mean and largest difference from the first row's.
"""

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Annotated, Any

import numpy as np
import typer
from drawing_memory import SECONDS, anonymous_bytes
from rich.console import Console
from rich.table import Table

from pocketdiffusion.cli.console import run
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.engines import load_runner
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.memory import return_freed_memory

PHONES = {"onnx": "pixel-8", "tflite": "galaxy-s24", "coreml": "iphone-16"}
REWRITE = "tiled_decoder"


def write_weights(folder: Path) -> None:
    """Write the weights of the autoencoder, float16, to `folder`/vae.safetensors."""
    import torch
    from diffusers import AutoencoderKL
    from full_size import VAE, random_weights
    from safetensors.torch import save_file

    with torch.device("meta"):
        vae = AutoencoderKL(**VAE)
    save_file(random_weights(vae, torch.float16), folder / "vae.safetensors")


def emit_one(folder: Path, format: str, stripes: int, latents: int) -> None:
    """Write the artifact below `folder`/FORMAT_STRIPES, and its record to graph.json there. In a child process."""
    from full_size import VAE

    from pocketdiffusion.choices import choose
    from pocketdiffusion.export.backends.emission import emit_floats
    from pocketdiffusion.export.checkpoints.safetensors_header import read_header
    from pocketdiffusion.export.families.parts import autoencoder_kl
    from pocketdiffusion.export.rewrites import tiled_decoder
    from pocketdiffusion.export.targets import load_target

    tiled_decoder.STRIPES = max(stripes, 1)
    config = autoencoder_kl.read_config("vae", VAE)
    stored = read_header(folder / "vae.safetensors")
    decoder, _ = autoencoder_kl.components("vae", config, stored, (latents, latents), ())
    ways = choose(load_target(PHONES[format]), None, format, None, vae_tiles="exact" if stripes else "none")
    home = folder / f"{format}_{stripes}"
    home.mkdir()
    graph = emit_floats(decoder, ways.artifacts[0], home, open_batch=False)
    (home / "graph.json").write_text(graph.model_dump_json())


def call_one(folder: Path, format: str, latents: int) -> None:
    """Call the artifact once, print the bytes that the call needed, and store the picture. In a child process."""
    graph = Graph.model_validate_json((folder / "graph.json").read_text())
    noise = np.random.default_rng(0).standard_normal((1, 4, latents, latents), dtype=np.float32)
    runner = load_runner(folder, format, graph)
    return_freed_memory()
    before, samples, ended = anonymous_bytes(), [0], Event()

    def watch() -> None:
        while not ended.is_set():
            samples.append(anonymous_bytes())
            time.sleep(SECONDS)

    watcher = Thread(target=watch)
    watcher.start()
    picture = runner({"latent_sample": noise})["sample"]
    ended.set()
    watcher.join()
    np.save(folder / "picture.npy", picture)
    print(json.dumps({"predicted": graph.memory and graph.memory.activations_bytes, "measured": max(samples) - before}))


def child(*words: object) -> str:
    """Run this file with `words` in a process of its own. Return its output. Raise ProofError if it fails."""
    done = subprocess.run([sys.executable, __file__, *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise ProofError(f"{words}: {(done.stderr.strip() or 'killed').splitlines()[-1]}")
    return done.stdout


def measure(folder: Path, format: str, stripes: int, latents: int) -> dict[str, Any]:
    """Return the row of one number of stripes."""
    child("emit", folder, format, stripes, latents)
    home = folder / f"{format}_{stripes}"
    row: dict[str, Any] = {"format": format, "latents": latents, "stripes": stripes}
    row |= json.loads(child("call", home, format, latents).splitlines()[-1])
    return row | {"operators": sum(json.loads((home / "graph.json").read_text())["ops"].values())}


def main(
    format: Annotated[str, typer.Option(help="onnx, tflite or coreml.")] = "onnx",
    stripes: Annotated[str, typer.Option(help="Numbers of stripes, 0 for none.")] = "0,4,8,16",
    latents: Annotated[int, typer.Option(help="Height and width of the latents; pictures have 8 times as many.")] = 64,
    output: Annotated[Path, typer.Option("-o", help="JSON file for the figures.")] = Path("build/decoder_memory.json"),
) -> None:
    rows = []
    with TemporaryDirectory(dir=Path.cwd()) as scratch:
        folder = Path(scratch)
        write_weights(folder)
        for count in map(int, stripes.split(",")):
            rows.append(measure(folder, format, count, latents))
            first, own = (np.load(folder / f"{format}_{row['stripes']}/picture.npy") for row in (rows[0], rows[-1]))
            rows[-1]["difference"] = float(np.abs(first - own).max() / np.abs(first).max())
    names = ("stripes", "operators", "predicted MB", "measured MB", "largest difference")
    table = Table(*names, title=f"one call of the decoder, {format}, {8 * latents}x{8 * latents}")
    for row in rows:
        sizes = (f"{row[key] / 1e6:.0f}" for key in ("predicted", "measured"))
        table.add_row(str(row["stripes"] or "none"), str(row["operators"]), *sizes, f"{row['difference']:.1e}")
    Console().print(table)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["emit"]:
        emit_one(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    elif sys.argv[1:2] == ["call"]:
        call_one(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
    else:
        run(partial(typer.run, main))
