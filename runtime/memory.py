"""The memory that this process has taken."""

import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def own_peak_bytes() -> int:
    """Return the largest resident memory of this process so far, of the program that it runs now.

    On Linux that is VmHWM. getrusage's ru_maxrss is not: it is kept over exec, so that a child begins with what its
    parent had taken when it forked (kernel, fs/exec.c, setmax_mm_hiwater_rss). On macOS ru_maxrss is the program's own,
    in bytes.
    """
    try:
        return int(STATUS.read_text().split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):  # not Linux, or a kernel that does not say
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
