"""What a command costs: memory as the sum over its process tree, sampled every 50 ms, and time."""

import subprocess
import time
from dataclasses import dataclass
from resource import RUSAGE_CHILDREN, getrusage

import psutil

from pocketdiffusion.runtime.errors import ProofError

MB = 1e6


@dataclass(frozen=True)
class Cost:
    """`peak_mb` of 1e6 bytes, resident; `seconds` by the clock, `cpu_seconds` of all processors together."""

    peak_mb: float
    seconds: float
    cpu_seconds: float
    output: str


def run_and_watch(command: list[str]) -> Cost:
    """Runs `command` to its end; `output` is what it printed. Raises ProofError where it fails."""
    start, begun, peak = time.perf_counter(), _processor_time(), 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        root = psutil.Process(child.pid)
        while child.poll() is None:
            peak = max(peak, tree_memory(root))
            time.sleep(0.05)
        output = child.stdout.read() if child.stdout else ""
    if child.returncode:
        raise ProofError(f"{' '.join(command[-6:])} failed: {output.strip().splitlines()[-1]}")
    return Cost(peak / MB, time.perf_counter() - start, _processor_time() - begun, output)


def tree_memory(root: psutil.Process) -> float:
    """Resident bytes of a process and all below it."""
    total = 0.0
    try:
        for process in (root, *root.children(recursive=True)):
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
    except psutil.NoSuchProcess:
        return total
    return total


def _processor_time() -> float:
    """Of all children that have ended."""
    usage = getrusage(RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
