"""The phone's instruction set: start a worker under qemu-user, on a processor like a phone's.

No kernel, root or chroot is needed: qemu translates one process, which sees the machine's own files, and whose loader
and C library are in the stand-in's folder.
"""

from pathlib import Path

from pocketdiffusion.runtime.devices.child import ChildRunner, Launch
from pocketdiffusion.runtime.devices.stamp import find_standin
from pocketdiffusion.runtime.devices.standins import PYTHON
from pocketdiffusion.runtime.errors import ProofError

CORE = "cortex-a76"  # Armv8.2 with float16 and dot product, which every present phone has
WANTED = ("asimdhp", "asimddp")  # Linux's words for these two
EMULATOR, ROOT, SITE = "bin/qemu-aarch64", "root", "site"


def launch_arm64(cache: Path, core: str, seconds: float) -> Launch:
    """Return how to start a worker on the processor `core` (qemu's name). `seconds` limits each call. Raise UserError
    if the stand-in is missing or incomplete."""
    folder = find_standin(cache, "arm64").resolve()
    python = folder / ROOT / f"usr/bin/python{PYTHON}"
    command = (str(folder / EMULATOR), "-cpu", core, "-L", str(folder / ROOT), str(python), "-I", "-S")
    return Launch(f"arm64 ({core})", command, (str(folder / SITE),), {}, seconds)


def check_core(runner: ChildRunner, core: str) -> None:
    """Raise ProofError if the emulated processor has no float16 arithmetic or dot product, as phones have."""
    lacking = [word for word in WANTED if word not in runner.features]
    if lacking:
        raise ProofError(
            f"arm64: the emulated processor {core} lacks {', '.join(lacking)} (float16 arithmetic or dot "
            f"product): give --core {CORE} or a newer one"
        )
