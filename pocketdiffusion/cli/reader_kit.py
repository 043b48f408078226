"""The command reader-kit."""

from pathlib import Path
from typing import Annotated

import typer

from pocketdiffusion.cli.completion import complete_formats
from pocketdiffusion.cli.console import Output
from pocketdiffusion.cli.extras import needs_export
from pocketdiffusion.cli.options import Quiet


def reader_kit(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write the kit to.")],
    format: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The format of the bundles. By default, the first format of the target `generic` is written. "
            "`pocketdiffusion list formats` lists all formats.",
            autocompletion=complete_formats,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="The seed of the models' random weights. By default, it is random."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Write tiny test bundles and the pictures expected of them.

    They test a reader: a program in any programming language that opens bundles and draws with them, as docs/BUNDLE.md
    specifies."""
    from pocketdiffusion.choices import choose
    from pocketdiffusion.export.targets import load_target
    from pocketdiffusion.runtime.bundle.staging import check_output_folder

    choose(load_target("generic"), None, format, None)
    check_output_folder(folder)
    output = Output(quiet)
    with output.show_progress(f"writing {folder}") as progress:
        progress("loading torch")
        with needs_export():
            from pocketdiffusion.reader_kit import write_kit
        count = write_kit(folder, format=format, seed=seed, progress=progress)
    output.print_line(f"{folder} has tiny bundles, and requests.json lists {count} pictures to draw with them")
