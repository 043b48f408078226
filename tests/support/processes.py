"""For the tests of what is left of a command that was killed."""

import time
from collections.abc import Collection
from pathlib import Path


def begun_by(parent: int) -> dict[int, str]:
    """The running processes that one has begun, and that they have: their command lines by id."""
    found: dict[int, str] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, owner = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has just ended
            continue
        if int(owner) == parent and state != "Z":
            found |= {int(entry.name): line, **begun_by(int(entry.name))}
    return found


def outlived(begun: Collection[int], seconds: float = 20) -> list[int]:
    """Those of some processes that have not ended by themselves after a while."""
    until = time.monotonic() + seconds
    while left := [pid for pid in begun if _runs(pid)]:
        if time.monotonic() > until:
            return left
        time.sleep(0.1)
    return []


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
