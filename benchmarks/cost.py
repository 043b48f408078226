"""Measure the cost of a command: memory, summed over its process tree and sampled every 50 ms, and time."""

import subprocess
import time
from dataclasses import dataclass
from resource import RUSAGE_CHILDREN, getrusage

import psutil

from pocketdiffusion.runtime.errors import ProofError

MB = 1e6


@dataclass(frozen=True)
class Cost:
    """`peak_mb`: resident memory in MB (1e6 bytes). `seconds`: wall-clock time. `cpu_seconds`: of all processors
    together. `output`: what the command printed."""

    peak_mb: float
    seconds: float
    cpu_seconds: float
    output: str


def run_and_watch(command: list[str]) -> Cost:
    """Run `command` to its end and return its cost. Raises ProofError if it fails."""
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
    """Return the resident bytes of a process and all of its descendants."""
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
    """Return the CPU seconds of all child processes that have ended."""
    usage = getrusage(RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
