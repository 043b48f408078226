"""The command reader-kit."""

from pathlib import Path
from typing import Annotated

import typer

from pocketdiffusion.cli.completion import complete_formats
from pocketdiffusion.cli.console import Output
from pocketdiffusion.cli.extras import needs_export
from pocketdiffusion.cli.options import Quiet


def reader_kit(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write.")],
    format: Annotated[
        str | None,
        typer.Option(
            help="The format of the bundles, instead of the first of the target generic. `pocketdiffusion list "
            "formats` shows them.",
            autocompletion=complete_formats,
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="The seed of the models' weights, instead of a new one each time.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Write the kit by which readers are tested.

    It holds tiny bundles and the pictures that they should draw, for a reader in any language."""
    from pocketdiffusion.choices import choose
    from pocketdiffusion.export.targets import load_target
    from pocketdiffusion.runtime.bundle.staging import check_place

    choose(load_target("generic"), None, format, None)
    check_place(folder)
    output = Output(quiet)
    with output.progress(f"writing {folder}") as progress:
        progress("loading torch")
        with needs_export():
            from pocketdiffusion.reader_kit import write_kit
        count = write_kit(folder, format=format, seed=seed, say=progress)
    output.say(f"{folder} holds tiny bundles, and in requests.json what to draw with them: {count} pictures")
