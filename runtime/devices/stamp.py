"""What `setup` leaves in a stand-in's folder, so that one that is not whole is not used: its packages, its files."""

import json
from dataclasses import asdict
from pathlib import Path

from pocketdiffusion.runtime.devices.packages import Package, packages_of
from pocketdiffusion.runtime.errors import UserError

STAMP = "standin.json"


def write_stamp(folder: Path, packages: tuple[Package, ...]) -> None:
    """Of every file below `folder`, its size."""
    files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in _files(folder)}
    (folder / STAMP).write_text(json.dumps({"packages": [asdict(p) for p in packages], "files": files}))


def find_standin(cache: Path, name: str) -> Path:
    """The folder of the stand-in `name` below `cache`. Raises UserError, in one line with the way out, where it was
    not set up, is of other versions than this pocketdiffusion wants, or lacks a file."""
    folder = cache / name
    again = f"pocketdiffusion devices install {name} --standins {cache}"
    try:
        stamp = json.loads((folder / STAMP).read_text())
        installed = {(p["name"], p["version"], p["registry"]) for p in stamp["packages"]}
        files = dict(stamp["files"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"the stand-in {name} is not set up in {cache}: {again}") from None
    for package in packages_of(name):
        # Debian's may be newer than the table, and were checked by its signed index
        if package.registry != "debian" and (package.name, package.version, package.registry) not in installed:
            raise UserError(f"the stand-in {name} has another {package.name} than {package.version}: {again}")
    for path, size in files.items():
        try:
            whole = (folder / path).stat().st_size == size
        except OSError:
            whole = False
        if not whole:
            raise UserError(f"the stand-in {name} is not whole: {folder / path} is missing or damaged: {again}")
    return folder


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
