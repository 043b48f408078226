"""The stamp that the installer leaves in a stand-in's folder, its packages and files: an incomplete one is not used."""

import json
from pathlib import Path

from pocketdiffusion.runtime.devices.standins import load_standin
from pocketdiffusion.runtime.errors import UserError

STAMP = "standin.json"


def find_standin(cache: Path, name: str) -> Path:
    """Return the folder of the stand-in `name` below `cache`. Raise UserError, with the command that installs it, if it
    is not installed, has other versions than this pocketdiffusion requires, or lacks a file."""
    folder = cache / name
    again = f"run pocketdiffusion devices install {name} --standins {cache}"
    try:
        stamp = json.loads((folder / STAMP).read_text())
        installed = {(p["name"], p["version"]) for p in stamp["packages"]}
        files = dict(stamp["files"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"the stand-in {name} is not set up in {cache}: {again}") from None
    for package, version in load_standin(name).versions.items():
        if (package, version) not in installed:
            raise UserError(f"the stand-in {name} has another version of {package} than {version}: {again}")
    for path, size in files.items():
        try:
            complete = (folder / path).stat().st_size == size
        except OSError:
            complete = False
        if not complete:
            raise UserError(
                f"the stand-in {name} is incomplete: {folder / path} is missing or has a wrong size: {again}"
            )
    return folder
