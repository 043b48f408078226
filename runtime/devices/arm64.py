"""The phone's instruction set: how to start a worker under qemu-user, on a processor such as phones have.

No kernel, no root, no chroot: qemu translates one process, which sees the machine's own files, and takes its loader and
C library from the stand-in's folder.
"""

from pathlib import Path

from pocketdiffusion.runtime.devices.child import ChildRunner, Launch
from pocketdiffusion.runtime.devices.stamp import find_standin
from pocketdiffusion.runtime.devices.standins import PYTHON
from pocketdiffusion.runtime.errors import ProofError

CORE = "cortex-a76"  # Armv8.2 with float16 and dot product: what a phone of any maker has, or more
WANTED = ("asimdhp", "asimddp")  # Linux's words for these two
EMULATOR, ROOT, SITE = "bin/qemu-aarch64", "root", "site"


def launch_arm64(cache: Path, core: str, seconds: float) -> Launch:
    """`core` as qemu calls it. Raises ProofError where the stand-in is not set up, or not whole."""
    folder = find_standin(cache, "arm64").resolve()
    python = folder / ROOT / f"usr/bin/python{PYTHON}"
    command = (str(folder / EMULATOR), "-cpu", core, "-L", str(folder / ROOT), str(python), "-I", "-S")
    return Launch(f"arm64 ({core})", command, (str(folder / SITE),), {}, seconds)


def check_core(runner: ChildRunner, core: str) -> None:
    """Raises ProofError where the emulated processor lacks what makes the run worth anything."""
    lacking = [word for word in WANTED if word not in runner.features]
    if lacking:
        raise ProofError(f"arm64: the core {core} has no {', '.join(lacking)}: take {CORE}, or a later one")
