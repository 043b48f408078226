"""The command deploy."""

from typing import Annotated

import typer

from pocketdiffusion.cli.console import Output
from pocketdiffusion.cli.options import Folder, Quiet


def deploy(
    bundle: Folder,
    app: Annotated[
        str,
        typer.Option(
            metavar="APP",
            help="The app: `android` pushes to the demo app with adb, `ios` copies into the Xcode project.",
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The bundle's name in the app. By default, it is the name of its folder."),
    ] = None,
    phone: Annotated[
        str | None,
        typer.Option(
            metavar="SERIAL",
            help="The serial number of the phone, as `adb devices` lists it. It is required if several are connected.",
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Install a bundle in an app.

    Check that the app can run the bundle, and copy the files that drawing needs (the runtime part) to the app."""
    from pocketdiffusion.deploy import deploy as put

    output = Output(quiet)
    with output.show_progress(f"deploying {bundle} to the app {app}") as progress:
        done = put(bundle, app, name=name, phone=phone, progress=progress)
    output.print_line(done)
