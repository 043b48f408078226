"""Options and arguments that several commands share: one name, one meaning, one help text."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from pocketdiffusion.cli.completion import complete_formats, complete_recipes, complete_samplers, complete_targets

BUILT_IN = "emoji"
STANDINS = Path("~/.cache/pocketdiffusion/standins")

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The bundle: a folder that export wrote.")]
Phone = Annotated[
    str,
    typer.Option(
        metavar="PHONE",
        help="The phone to export for. `pocketdiffusion list targets` shows all phones.",
        autocompletion=complete_targets,
    ),
]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="The checkpoint: the built-in model, a diffusers folder, or a hub id (user/model).",
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The format to write, instead of all formats of the phone. `pocketdiffusion list formats` shows them.",
        autocompletion=complete_formats,
    ),
]
OneFormat = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The format to run, instead of the bundle's first. `pocketdiffusion list formats` shows them.",
        autocompletion=complete_formats,
    ),
]
Profile = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The dialect of the format, instead of the phone's own: which operators the file may use. "
        "`pocketdiffusion list profiles` shows them.",
    ),
]
Recipe = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="How weights are stored, instead of the phone's own recipe: one of `pocketdiffusion list recipes`, or a "
        "JSON file that search wrote.",
        autocompletion=complete_recipes,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(metavar="WxH", help="Width and height of the pictures in pixels, instead of the model's own size."),
]
Sampler = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The sampler to draw with, instead of the checkpoint's own scheduler. `pocketdiffusion list samplers` "
        "shows them.",
        autocompletion=complete_samplers,
    ),
]
Revision = Annotated[str | None, typer.Option(metavar="NAME", help="The branch, tag or commit of a hub id.")]
Token = Annotated[
    str | None, typer.Option(metavar="TOKEN", help="The access token of the hub, for models that ask for one.")
]
AllowUnexpected = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Accept tensors that the model does not use and whose names match this pattern, such as 'extra.*'. May be "
        "given several times.",
    ),
]
Prompts = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A text file with one prompt a line, instead of the built-in prompts."),
]
Standins = Annotated[
    Path, typer.Option(metavar="FOLDER", help="The folder that `pocketdiffusion devices install` writes to.")
]
BudgetMb = Annotated[
    float | None,
    typer.Option(metavar="MB", help="For the recipe mixed: the largest size of all weights, in MB of 1e6 bytes."),
]
MinPsnr = Annotated[
    float | None,
    typer.Option(metavar="DB", help="For the recipe mixed: the smallest median PSNR of the pictures, in dB."),
]


class ReportKind(Enum):
    """How much an export measures for its report."""

    SHORT = "short"
    FULL = "full"


Report = Annotated[
    ReportKind,
    typer.Option(
        "--report",
        help="How much to measure for the report. A full one also has the cost of each rewrite alone and of every form "
        "of an activation; no proof needs them.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace an older bundle in the output folder.")]
Plan = Annotated[
    bool,
    typer.Option(
        "--plan", help="Export nothing: print the sizes, the memory on the phone and the time that are to be expected."
    ),
]
Quiet = Annotated[
    bool, typer.Option("-q", "--quiet", help="Print errors only: no progress, no warnings, no results for people.")
]
Json = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON document on stdout, and nothing else there.")
]


class Device(Enum):
    """Where verify runs the graphs."""

    HOST = "host"
    ARM64 = "arm64"
    GPU = "gpu"
