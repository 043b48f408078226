"""The peak memory of this process."""

import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def own_peak_bytes() -> int:
    """Return the largest resident memory of this process so far, in bytes, since it started its present program.

    This is VmHWM on Linux. getrusage's ru_maxrss is kept over exec there, so that a child begins with its parent's
    memory at the fork (kernel, fs/exec.c, setmax_mm_hiwater_rss). On macOS ru_maxrss is the program's own, in bytes.
    """
    try:
        return int(STATUS.read_text().split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):  # not Linux, or a kernel without VmHWM
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
