"""Measure the Kotlin engine's work outside of the graphs (tokens, noise, 20 sampler steps, one picture of 512x512), and
20 calls of Stable Diffusion 1.5's UNet in full size (seeded random weights, latents of 64x64), on one thread of the
JVM.

    python benchmarks/android_host_work.py BUNDLE [--unet FILE.onnx] [-o FILE.json]

BUNDLE is the built-in model in float32 as ONNX; its tokenizer and step tables are used. Without --unet, full_size.py
and full_size_stages.py write the UNet for the target pixel-8, which needs 8 GB of disk in the current folder. It needs
a JDK and Maven. Exits with 1 if the work outside of the graphs is 2 % of the UNet's calls or more.
"""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.table import Table

from pocketdiffusion.cli.console import run, stdout
from pocketdiffusion.runtime.errors import ProofError

HERE = Path(__file__).parent
ANDROID = HERE.parent / "android_demo"
FOUND = ANDROID / "engine/target/host_work.json"
CALLS = 20
LARGEST = 2  # percent of the time of the UNet's calls


def export_unet(folder: Path) -> Path:
    """Write the UNet as ONNX with float16 weights, and return its file."""
    subprocess.run([sys.executable, HERE / "full_size.py", "write", folder], check=True)
    subprocess.run([sys.executable, HERE / "full_size_stages.py", "convert", folder, "onnx"], check=True)
    return folder / "onnx" / str(json.loads((folder / "onnx.json").read_text())["path"])


def measure(bundle: Path, unet: Path) -> None:
    """Run the Kotlin test, which writes its figures to FOUND. Raises ProofError if it fails."""
    FOUND.unlink(missing_ok=True)
    options = ["-B", "-ntp", "-q", "-pl", "engine", "-Dtest=HostWorkTest", f"-Dbundles={bundle}", f"-Dunet={unet}"]
    code = subprocess.run(["mvn", *options, "test"], cwd=ANDROID).returncode
    if not FOUND.exists():
        raise ProofError(f"HostWorkTest measured nothing: mvn ended with exit code {code}")


def main(
    bundle: Annotated[Path, typer.Argument(help="Bundle of the built-in model in float32, as ONNX.")],
    unet: Annotated[Path | None, typer.Option(help="ONNX file of the UNet, to skip its export.")] = None,
    output: Annotated[Path, typer.Option("-o", help="JSON file for the figures.")] = Path(
        "build/android_host_work.json"
    ),
) -> None:
    with TemporaryDirectory(dir=Path.cwd()) as scratch:
        measure(bundle.resolve(), unet.resolve() if unet else export_unet(Path(scratch)))
    found = json.loads(FOUND.read_text())
    table = Table("part", "ms")
    for name, milliseconds in found["milliseconds"].items():
        table.add_row(name, f"{milliseconds:.2f}")
    table.add_row("all of it", f"{sum(found['milliseconds'].values()):.2f}")
    table.add_row(f"{CALLS} UNet calls", f"{CALLS * 1000 * found['unet_call_seconds']:.0f}")
    stdout().print(table, f"{found['percent_of_20_calls']:.4f} % of the UNet's calls")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(found, indent=1) + "\n")
    if found["percent_of_20_calls"] >= LARGEST:
        raise ProofError(f"the engine's work outside of the graphs takes {LARGEST} % of the UNet's calls or more")


if __name__ == "__main__":
    run(lambda: typer.run(main))
