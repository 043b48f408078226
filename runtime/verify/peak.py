"""The peak memory of drawing one picture with a bundle, measured in a process of its own.

python -m pocketdiffusion.runtime.verify.peak DIR FORMAT      prints bytes"""

import subprocess
import sys
from pathlib import Path

from pocketdiffusion.runtime.bundle.bundle import open_unproven
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.memory import own_peak_bytes
from pocketdiffusion.runtime.pipeline import generate


def main(folder: str, format: str) -> None:
    """Draw one picture in two steps with the artifacts of the bundle, and print the peak memory of this process in
    bytes."""
    for _ in generate(open_unproven(Path(folder), check=False), "a", steps=2, format=format):
        pass
    print(own_peak_bytes())


def peak_mb(folder: Path, format: str) -> float:
    """Return the peak memory in MB (1e6 bytes) of a process that draws one picture, interpreter and engine included.

    Raise ProofError if drawing fails."""
    command = [sys.executable, "-m", __name__, str(folder), format]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["the process was killed"])[-1]
        raise ProofError(f"drawing with the {format} graphs of {folder} failed: {last}")
    return int(done.stdout.split()[-1]) / 1e6


if __name__ == "__main__":
    main(*sys.argv[1:])
