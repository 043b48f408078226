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
            help="The app: android is the demo app, reached by adb; ios is what Xcode builds into its app.",
        ),
    ],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The bundle's name in the app, instead of its folder's name.")
    ] = None,
    phone: Annotated[
        str | None,
        typer.Option(
            metavar="SERIAL", help="The phone, where several are connected: a serial number that `adb devices` lists."
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Put a bundle into an app.

    It is checked that the app can run the bundle; the runtime part is put where the app finds it."""
    from pocketdiffusion.deploy import deploy as put

    output = Output(quiet)
    with output.progress(f"deploying {bundle} to the app {app}") as progress:
        done = put(bundle, app, name=name, phone=phone, say=progress)
    output.say(done)
