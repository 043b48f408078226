"""The record of a stand-in for a phone: each file of runtime/devices/standins defines one, called `STANDIN`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pocketdiffusion.runtime.devices.child import ChildRunner, Launch


def accept_worker(runner: ChildRunner, core: str) -> None:
    """Accept every worker."""


@dataclass(frozen=True)
class StandinFacts:
    """One stand-in.

    `purpose` completes the sentence "verify --device NAME runs graphs on ...". `launch(cache, core, seconds)` returns
    how to start a worker: `cache` is the folder of all stand-ins, `core` qemu's name of the phone's processor, which
    only an emulated processor uses, `seconds` the time limit of each call; it raises UserError if the stand-in is
    missing or incomplete. `check(runner, core)` raises an error if a started worker lacks what phones have.

    `unit` is the compute unit that the stand-in replaces. It decides the ceiling of floors (runtime/verify/tolerances).
    An error that contains `refuses` is not a failure of a graph that is for another unit; "" if nothing is refused.

    For the installer (tools/): `versions` of the packages from registries that keep every version, by name, and
    `tools`, the programs that it needs on this machine.
    """

    purpose: str
    launch: Callable[[Path, str, float], Launch]
    check: Callable[[ChildRunner, str], None] = accept_worker
    unit: str = "cpu"
    refuses: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    tools: tuple[str, ...] = ()
