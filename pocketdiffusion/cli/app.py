"""The command line. Each command is a file of this folder that is registered here; it imports what it runs only when it
is called."""

import sys
from typing import Annotated, Any, NoReturn

import typer

from pocketdiffusion.cli.compare import compare
from pocketdiffusion.cli.console import run
from pocketdiffusion.cli.deploy import deploy
from pocketdiffusion.cli.devices import devices
from pocketdiffusion.cli.encoding import check_arguments, ensure_utf8
from pocketdiffusion.cli.export import export
from pocketdiffusion.cli.generate import generate
from pocketdiffusion.cli.inspect import inspect
from pocketdiffusion.cli.lists import list_names
from pocketdiffusion.cli.reader_kit import reader_kit
from pocketdiffusion.cli.runtime_part import runtime_part
from pocketdiffusion.cli.search import search
from pocketdiffusion.cli.targets import targets
from pocketdiffusion.cli.verify import verify
from pocketdiffusion.runtime.errors import UserError

app = typer.Typer(
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (export, verify, generate, inspect, compare, search, targets, runtime_part, deploy, reader_kit):
    app.command()(command)
app.command("list")(list_names)
app.add_typer(devices, name="devices")

USAGE_ERROR: Any = typer.BadParameter.__base__  # click's UsageError, or typer's own since it carries a copy of click


def show_version(requested: bool) -> None:
    """Print the version and end the command if --version was given."""
    if requested:
        import pocketdiffusion

        typer.echo(f"pocketdiffusion {pocketdiffusion.__version__}")
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Export Stable Diffusion checkpoints to ONNX, Core ML or TFLite for phones, and compare the result with the
    original.

    A bundle is the folder that `export` writes: graphs, tokenizer, tables, and the results of all checks.

    Exit codes: 0 success; 1 a check failed; 2 a mistake in the input, or something is missing: a file, a tool, memory;
    3 an error of this program; 130 interrupted; 141 the reader of stdout has ended.
    """


def call(arguments: list[str]) -> None:
    """Run one command. Raise UserError if its arguments are wrong."""
    check_arguments(arguments)
    try:
        code = app(arguments or ["--help"], prog_name="pocketdiffusion", standalone_mode=False)
    except USAGE_ERROR as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "pocketdiffusion"
        said = error.format_message().replace("Value error, ", "").rstrip(".")
        raise UserError(f"{said}; see {path} --help") from None
    except typer.Abort:
        raise KeyboardInterrupt from None
    if code == 130:  # typer returns this code for an interrupt
        raise KeyboardInterrupt


def main() -> NoReturn:
    """Run the command of this process (sys.argv), and exit."""
    ensure_utf8()
    run(lambda: call(sys.argv[1:]))
