"""The phone's instruction set: start a worker under qemu-user, on a processor like a phone's.

No kernel, root or chroot is needed: qemu translates one process, which sees the machine's own files, and whose loader
and C library are in the stand-in's folder.
"""

from pathlib import Path

from pocketdiffusion.runtime.devices.child import ChildRunner, Launch
from pocketdiffusion.runtime.devices.facts import StandinFacts
from pocketdiffusion.runtime.devices.stamp import find_standin
from pocketdiffusion.runtime.devices.standins import PYTHON
from pocketdiffusion.runtime.errors import ProofError

CORE = "cortex-a76"  # Armv8.2 with float16 and dot product, which every present phone has
CORES = (  # the processors of the emulator in tools/packages.json
    *("a64fx", "cortex-a35", "cortex-a53", "cortex-a55", "cortex-a57", "cortex-a710", "cortex-a72", "cortex-a76"),
    *("max", "neoverse-n1", "neoverse-n2", "neoverse-v1"),
)
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
        raise ProofError(f"arm64: the core {core} has no {', '.join(lacking)}: use {CORE}, or a later one")


STANDIN = StandinFacts(
    purpose="an emulated Arm processor",
    launch=launch_arm64,
    check=check_core,
    versions={  # the wheels, of the versions of constraints.txt (tests/test_tools_install.py)
        "ai-edge-litert": "2.3.0",
        "flatbuffers": "25.12.19",
        "ml_dtypes": "0.6.0",
        "numpy": "2.4.6",
        "onnxruntime": "1.32.0",
        "packaging": "26.3",
        "protobuf": "7.36.2",
        "tqdm": "4.70.1",
        "typing_extensions": "4.16.0",
    },
    tools=("apt-get", "apt-cache", "dpkg-deb"),
)
