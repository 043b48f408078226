"""The phone's GPU delegate: how to start a worker that finds SwiftShader's Vulkan, and no other."""

import sys
from pathlib import Path

from pocketdiffusion.runtime.devices.child import Launch
from pocketdiffusion.runtime.devices.stamp import find_standin

FILES = ("libvk_swiftshader.so", "libvulkan.so.1", "vk_swiftshader_icd.json")


def launch_gpu(cache: Path, seconds: float) -> Launch:
    """LiteRT is that of this Python. Raises ProofError where the stand-in is not set up, or not whole."""
    folder = find_standin(cache, "gpu").resolve()
    driver = str(folder / FILES[2])
    environment = {"LD_LIBRARY_PATH": str(folder), "VK_ICD_FILENAMES": driver, "VK_DRIVER_FILES": driver}
    libraries = tuple(path for path in sys.path if path)
    return Launch("gpu (SwiftShader)", (sys.executable, "-I", "-S"), libraries, environment, seconds)
