"""The phone's GPU delegate: start a worker that finds only SwiftShader's Vulkan."""

import sys
from pathlib import Path

from pocketdiffusion.runtime.devices.child import Launch
from pocketdiffusion.runtime.devices.facts import StandinFacts
from pocketdiffusion.runtime.devices.ml_drift import REFUSES
from pocketdiffusion.runtime.devices.stamp import find_standin

FILES = ("libvk_swiftshader.so", "libvulkan.so.1", "vk_swiftshader_icd.json")


def launch_gpu(cache: Path, core: str, seconds: float) -> Launch:
    """Return how to start a worker with this Python's LiteRT, on this machine's processor whatever `core` is.
    `seconds` limits each call. Raise UserError if the stand-in is missing or incomplete."""
    folder = find_standin(cache, "gpu").resolve()
    driver = str(folder / FILES[2])
    environment = {"LD_LIBRARY_PATH": str(folder), "VK_ICD_FILENAMES": driver, "VK_DRIVER_FILES": driver}
    libraries = tuple(path for path in sys.path if path)
    return Launch("gpu (SwiftShader)", (sys.executable, "-I", "-S"), libraries, environment, seconds)


STANDIN = StandinFacts(
    purpose="LiteRT's GPU delegate in software",
    launch=launch_gpu,
    unit="gpu",
    refuses=REFUSES,
    versions={"@sparticuz/chromium": "147.0.0"},
    tools=("npm", "node"),
)
