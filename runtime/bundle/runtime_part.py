"""The runtime part of a bundle: only the files that drawing needs. An app ships it."""

import shutil
from pathlib import Path

from pocketdiffusion.runtime.bundle.bundle import Bundle, open_bundle
from pocketdiffusion.runtime.bundle.file_table import DIGEST, MANIFEST
from pocketdiffusion.runtime.bundle.staging import stage
from pocketdiffusion.runtime.errors import UserError


def copy_runtime_part(folder: Path, out: Path) -> Bundle:
    """Copy the files of role runtime from the bundle `folder` to `out`, with the manifest as it is, so that the ids
    stay.

    Raise UserError and ProofError if `folder` is not a bundle that passed its proof, and UserError if `out` is the
    bundle itself, or holds anything except a bundle. A bundle at `out` is replaced."""
    bundle = open_bundle(folder)
    if out.resolve() == folder.resolve():
        raise UserError(f"{out} is the bundle itself: name another folder for its runtime part")
    with stage(out) as staged:
        expected = [path for path, entry in bundle.manifest.files.items() if entry.role == "runtime"]
        for path in (*expected, MANIFEST, DIGEST):
            (staged / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / path, staged / path)
    return open_bundle(out, check=False)
