"""The command runtime-part."""

from pathlib import Path
from typing import Annotated

import typer

from pocketdiffusion.cli.console import Output
from pocketdiffusion.cli.export import check_folder
from pocketdiffusion.cli.options import Folder, Force, Quiet


def runtime_part(
    bundle: Folder,
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write the files to.")],
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Copy the files of a bundle that an app needs.

    The copy can generate pictures. It has no recorded test data and no reports."""
    from pocketdiffusion.runtime.bundle.runtime_part import copy_runtime_part

    output = Output(quiet)
    if bundle.resolve() != folder.resolve():
        check_folder(folder, force)
    with output.show_progress(f"copying {bundle}") as progress:
        progress("hashes")
        copied = copy_runtime_part(bundle, folder)
    size = sum(entry.size for entry in copied.manifest.files.values() if entry.role == "runtime")
    output.print_line(
        f"{folder} is the runtime part, {size / 1e6:.1f} MB, runtime_id {copied.manifest.runtime_id[:16]}"
    )
