"""Install a stand-in for a phone: download its packages, compare them with the table's sha256, unpack them, stamp it.

Nothing is installed on the machine and root is not needed. Required: Linux on x86_64, and the programs that
the stand-in's record names in `tools` (runtime/devices/standins).
"""

import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from pocketdiffusion.runtime.devices.stamp import STAMP
from pocketdiffusion.runtime.devices.standins import load_standin
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.progress import Progress
from pocketdiffusion.tools.packages import Package, packages_of
from pocketdiffusion.tools.registries import download
from pocketdiffusion.tools.unpack import UNPACK


def set_up(name: str, cache: Path, progress: Progress) -> Path:
    """Install the stand-in `name` as `cache`/`name`, replace an older one, and return that folder. The seconds of each
    stage are reported as progress.

    Raise UserError if the machine lacks a tool, a registry has no such package, a package differs from the table, or
    `cache`/`name` has a file that no installer wrote.
    """
    check_machine(name)
    _refuse_foreign(cache / name)
    cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=cache, prefix=f".{name}-") as scratch:
        downloads, folder = Path(scratch, "downloads"), Path(scratch, name)
        downloads.mkdir()
        folder.mkdir()
        packages = packages_of(name)
        with _stage(f"{name}: download {len(packages)} packages", progress):
            files = download(packages, downloads, Path(scratch), progress)
        with _stage(f"{name}: unpack", progress):
            UNPACK[name](files, folder)
            write_stamp(folder, packages)
        if (cache / name).exists():
            shutil.rmtree(cache / name)
        folder.rename(cache / name)
    return cache / name


def check_machine(name: str) -> None:
    """Raise UserError if the stand-in cannot be installed on this machine."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise UserError(
            f"the stand-in {name} needs Linux on x86_64, and this machine is {sys.platform} on {platform.machine()}"
        )
    missing = missing_tools(name)
    if missing:
        raise UserError(f"the stand-in {name} needs {', '.join(missing)} on this machine: install these programs")


def missing_tools(name: str) -> list[str]:
    """Return the programs that `set_up` needs and that are not installed."""
    return [tool for tool in load_standin(name).tools if shutil.which(tool) is None]


def write_stamp(folder: Path, packages: tuple[Package, ...]) -> None:
    """Write into `folder` the list of its packages, and the size (bytes) of every file below it."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}
    (folder / STAMP).write_text(json.dumps({"packages": [asdict(p) for p in packages], "files": files}))


def _refuse_foreign(folder: Path) -> None:
    """Raise UserError if `folder` contains anything except an older stand-in."""
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise UserError(f"{folder} is not a folder of a stand-in: move it, or choose another --standins")
    try:
        known = {STAMP, *json.loads((folder / STAMP).read_bytes())["files"]}
    except (OSError, ValueError, LookupError, TypeError):
        known = set()
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        # a link is the unpacked package's own, __pycache__ Python's
        if path.is_file() and not path.is_symlink() and "__pycache__" not in inside.parts:
            if inside.as_posix() not in known:
                raise UserError(
                    f"{folder} contains {inside}, which no installer wrote: move it, or choose another --standins"
                )


@contextmanager
def _stage(title: str, progress: Progress) -> Iterator[None]:
    begun = perf_counter()
    yield
    progress(f"{title}: {perf_counter() - begun:.1f} s")
