"""The phone's instruction set: start a worker under qemu-user, on a processor like a phone's.

No kernel, root or chroot is needed: qemu translates one process, which sees the machine's own files, and whose loader
and C library are in the stand-in's folder.
"""

import subprocess
from difflib import get_close_matches
from pathlib import Path

from pocketdiffusion.runtime.devices.child import ChildRunner, Launch
from pocketdiffusion.runtime.devices.facts import StandinFacts
from pocketdiffusion.runtime.devices.stamp import find_standin
from pocketdiffusion.runtime.devices.standins import PYTHON
from pocketdiffusion.runtime.errors import UserError

CORE = "cortex-a76"  # Armv8.2 with float16 and dot product, which every present phone has
CORES = (  # the processors of the emulator in tools/packages.json
    *("a64fx", "cortex-a35", "cortex-a53", "cortex-a55", "cortex-a57", "cortex-a710", "cortex-a72", "cortex-a76"),
    *("max", "neoverse-n1", "neoverse-n2", "neoverse-v1"),
)
WANTED = ("asimdhp", "asimddp")  # Linux's words for these two
EMULATOR, ROOT, SITE = "bin/qemu-aarch64", "root", "site"


def launch_arm64(cache: Path, core: str, seconds: float) -> Launch:
    """Return how to start a worker on the processor `core` (qemu's name). `seconds` limits each call. Raise UserError
    if the stand-in is missing or incomplete, or its emulator has no such processor."""
    folder = find_standin(cache, "arm64").resolve()
    _check_name(folder / EMULATOR, core)
    python = folder / ROOT / f"usr/bin/python{PYTHON}"
    command = (str(folder / EMULATOR), "-cpu", core, "-L", str(folder / ROOT), str(python), "-I", "-S")
    return Launch(f"arm64 ({core})", command, (str(folder / SITE),), {}, seconds)


def check_core(runner: ChildRunner, core: str) -> None:
    """Raise UserError if the emulated processor has no float16 arithmetic or dot product, as phones have."""
    lacking = [word for word in WANTED if word not in runner.features]
    if lacking:
        raise UserError(
            f"arm64: the emulated processor {core} lacks {', '.join(lacking)} (float16 arithmetic or dot product): "
            f"give --core {CORE} or a newer one"
        )


def _check_name(emulator: Path, core: str) -> None:
    """Raise UserError, with the nearest names, if `core` is not a processor of the emulator. Properties that follow
    the name after a comma are not checked."""
    try:  # qemu ends with 1 after the list
        listed = subprocess.run([emulator, "-cpu", "help"], capture_output=True, text=True).stdout
    except OSError as error:
        raise UserError(f"arm64: cannot run {emulator}: {error.strerror}") from None
    names = listed.partition(":")[2].split()
    model = core.partition(",")[0]
    if model not in names:
        near = get_close_matches(model.lower(), names, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(names)}"
        raise UserError(f"arm64: the emulator has no core {model}: {hint}")


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
