"""The commands devices install and devices list. Stand-ins for phones are emulators on this machine."""

from typing import Annotated

import typer

from pocketdiffusion.cli.arguments import expand_home
from pocketdiffusion.cli.console import Output
from pocketdiffusion.cli.options import STANDINS, Quiet, Standins
from pocketdiffusion.runtime.devices.standins import load_standin, standin_names

devices = typer.Typer(
    help="Install and list stand-ins for a phone. They are emulators, on which `verify --device` runs graphs.",
    rich_markup_mode=None,
)


@devices.command()
def install(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME",
            help=f"The stand-ins to install: {', '.join(standin_names())}. `pocketdiffusion devices list` describes "
            "them.",
        ),
    ],
    standins: Standins = STANDINS,
    quiet: Quiet = False,
) -> None:
    """Install stand-ins for a phone.

    They are emulators. They are downloaded from the registries that pip, npm and apt of this machine are configured
    for, checked by sha256, and unpacked below --standins. Linux on x86_64 only; root is not needed.
    """
    from pocketdiffusion.tools.install import set_up

    for name in names:
        load_standin(name)
    output = Output(quiet)
    for name in names:
        folder = set_up(name, expand_home(standins), output.print_line)
        output.print_line(f"{name} is installed in {folder}")


@devices.command("list")
def list_devices(standins: Standins = STANDINS) -> None:
    """List engines, toolchains and stand-ins.

    The table shows which are installed on this machine, and how to install the others."""
    from pocketdiffusion.cli.machine import examine
    from pocketdiffusion.cli.tables import machine_table

    Output().table(machine_table(examine(standins)))
