"""The memory of this process: its peak, and returning what was freed to the system."""

import ctypes
import gc
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STATUS = Path("/proc/self/status")
MEMINFO = Path("/proc/meminfo")
LARGE = 2**20  # bytes; smaller blocks are few among weights
# glibc's malloc.h and malloc.c: parameters of mallopt, and the largest value that its rule sets the first one to.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_THRESHOLD = 32 * 2**20


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


def available_bytes() -> int | None:
    """Return the memory in bytes that a process can get without swapping: Linux's MemAvailable (proc(5)); None on other
    systems."""
    try:
        return int(MEMINFO.read_text().split("MemAvailable:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        return None


def return_freed_memory() -> None:
    """Return memory that is no longer used to the system, if the C library can: glibc's malloc_trim(3)."""
    gc.collect()
    _tell_malloc("malloc_trim", 0)


@contextmanager
def returning_large_blocks() -> Iterator[None]:
    """Let glibc return each freed block of `LARGE` bytes or more at once, and before and after that all that is free.
    Other C libraries are left as they are."""
    _tell_malloc("malloc_trim", 0)
    try:
        with mapping_large_blocks():
            yield
    finally:
        _tell_malloc("malloc_trim", 0)


@contextmanager
def mapping_large_blocks() -> Iterator[None]:
    """Let glibc map each new block of `LARGE` bytes or more on its own, which returns it as soon as it is freed.

    By itself glibc keeps freed blocks of up to 32 MB in its heap (mallopt(3), M_MMAP_THRESHOLD), and with them most of
    what an engine frees while it loads and when it is closed (benchmarks/RESULTS.md). Afterwards the thresholds are
    those that glibc's own rule ends at. Other C libraries are left as they are.
    """
    _tell_malloc("mallopt", _MMAP_THRESHOLD, LARGE)
    try:
        yield
    finally:
        _tell_malloc("mallopt", _MMAP_THRESHOLD, _LARGEST_THRESHOLD)
        _tell_malloc("mallopt", _TRIM_THRESHOLD, 2 * _LARGEST_THRESHOLD)


def _tell_malloc(function: str, *numbers: int) -> None:
    """Call a function of glibc's malloc; do nothing where the C library has none of this name."""
    known = getattr(ctypes.CDLL(None), function, None)
    if known is not None:
        known(*(ctypes.c_size_t(n) if function == "malloc_trim" else ctypes.c_int(n) for n in numbers))
