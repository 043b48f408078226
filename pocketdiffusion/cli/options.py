"""Options and arguments that several commands share: one name, one meaning, one help text."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from pocketdiffusion.cli.completion import complete_formats, complete_recipes, complete_samplers, complete_targets
from pocketdiffusion.runtime.devices.standins import standin_names

BUILT_IN = "emoji"
STANDINS = Path("~/.cache/pocketdiffusion/standins")
RECORDINGS = Path("~/.cache/pocketdiffusion/recordings")

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a bundle, as `export` wrote it.")]
Phone = Annotated[
    str,
    typer.Option(
        metavar="PHONE",
        help="The phone to export for. `pocketdiffusion list targets` lists all phones.",
        autocompletion=complete_targets,
    ),
]
Phones = Annotated[
    list[str],
    typer.Option(
        "--target",
        metavar="PHONE",
        help="The phone to export for. Repeat the option to export for several phones, each into the folder DIR/PHONE: "
        "the original is recorded once. `pocketdiffusion list targets` lists all phones.",
        autocompletion=complete_targets,
    ),
]
Recordings = Annotated[
    Path,
    typer.Option(
        "--recordings",
        metavar="DIR",
        help="The folder where the original's recorded drawings are kept. An export of the same model with the same "
        "proof, for any phone, format or recipe, reads them there instead of drawing again.",
    ),
]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        "--max-memory",
        metavar="SIZE",
        help="The memory that the export may use, such as 6GB or 800MB. An export that needs more is refused before it "
        "starts, with what fits. By default, the limit is the memory that is free.",
    ),
]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="The checkpoint: `emoji` (built in), a folder in diffusers' format, or a Hugging Face id (user/model).",
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The only format to write. It may be one that the target does not list, if the phone's system can run it. "
        "By default, every format of the target is written. `pocketdiffusion list formats` lists all formats.",
        autocompletion=complete_formats,
    ),
]
OneFormat = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The format to run, such as onnx. By default, the first one that `inspect` lists.",
        autocompletion=complete_formats,
    ),
]
Profile = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The set of operators that the file may use: ort or std (ONNX), std (TFLite), ios16 to ios18 (Core "
        "ML). By default, the target's own profile is used. `pocketdiffusion list profiles` describes them.",
    ),
]
Recipe = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="How weights are stored and computed: a name from `pocketdiffusion list recipes`, or a JSON file from "
        "`search`. By default, the phone's own recipe is used.",
        autocompletion=complete_recipes,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        metavar="WxH",
        help="Width and height of the pictures in pixels, such as 512x512; multiples of 8 for Stable Diffusion. "
        "By default, the model's own size is used.",
    ),
]
Sampler = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The sampler to draw with, such as ddim. By default, the checkpoint's own scheduler is used. "
        "`pocketdiffusion list samplers` lists all samplers.",
        autocompletion=complete_samplers,
    ),
]
BundleSampler = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The sampler to draw with, such as ddim. By default, the bundle's own, which `inspect` shows. "
        "`pocketdiffusion list samplers` lists all samplers.",
        autocompletion=complete_samplers,
    ),
]
SplitUnet = Annotated[
    int | None,
    typer.Option(
        "--split-unet",
        metavar="N",
        help="The number of graphs that the UNet becomes, of nearly equal weight, which run one after the other. By "
        "default, the phone's own number is used, or, for `export`, the fewest with which drawing fits its memory.",
    ),
]
VaeTiles = Annotated[
    str | None,
    typer.Option(
        "--vae-tiles",
        metavar="KIND",
        help="How the VAE decodes a picture: `none`, in one piece; `exact`, in horizontal stripes, in less memory and "
        "with the same result; or `blended`, in tiles that the app blends, which need less memory and change the "
        "picture. By default, the phone's own, which is `none` unless its file states another.",
    ),
]
VaeTileSize = Annotated[
    int | None,
    typer.Option(
        "--vae-tile-size",
        metavar="PX",
        help="The height and width of a blended tile in pixels. By default, half of the larger side of the picture, at "
        "least 64 latents, and at most 7/8 of that side.",
    ),
]
Revision = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The branch, tag or commit of a model on Hugging Face. Not for folders and built-in models.",
    ),
]
Token = Annotated[
    str | None, typer.Option(metavar="TOKEN", help="The access token for Hugging Face. Only gated models need it.")
]
AllowUnexpected = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Ignore unused tensors of the checkpoint whose names match this pattern, such as 'extra.*'. The option "
        "can be repeated.",
    ),
]
Prompts = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A text file with one prompt per line. By default, built-in prompts are used."),
]
Standins = Annotated[
    Path, typer.Option(metavar="FOLDER", help="The folder that `pocketdiffusion devices install` installs to.")
]
BudgetMb = Annotated[
    float | None,
    typer.Option(
        metavar="MB",
        help="The upper limit of the total size of all weights, in MB (1e6 bytes). Only for the recipe `mixed`, "
        "which needs either this or --min-median-psnr.",
    ),
]
MinPsnr = Annotated[
    float | None,
    typer.Option(
        "--min-median-psnr",
        metavar="DB",
        help="The lowest median PSNR that the pictures may have, in dB. Only for the recipe `mixed`, which needs "
        "either this or --budget-mb.",
    ),
]


class ProofKind(Enum):
    """How much of the original an export is compared with."""

    QUICK = "quick"
    FULL = "full"


Proof = Annotated[
    ProofKind,
    typer.Option(
        "--proof",
        help="How much is drawn and compared. `full`: four pictures of 10 steps, and three control pictures of each. "
        "`quick`: one picture of 3 steps, and one control. Both make every kind of check, and the bundle states which.",
    ),
]


class ReportKind(Enum):
    """The amount of measurements for the report of an export."""

    SHORT = "short"
    FULL = "full"


Report = Annotated[
    ReportKind,
    typer.Option(
        "--report",
        help="How much to measure for report/report.html. `full` also measures the error of each single rewrite, "
        "and compares ways to compute each activation function in float16. It takes longer and does not "
        "change the checks.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace an older bundle in the output folder.")]
Plan = Annotated[
    bool,
    typer.Option("--plan", help="Export nothing. Only print the expected sizes, memory on the phone, and time."),
]
Quiet = Annotated[
    bool, typer.Option("-q", "--quiet", help="Print errors only: no progress, no warnings and no tables.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document on stdout.")]


class Device(Enum):
    """The machine or stand-in that runs the graphs in `verify`."""

    _ignore_ = "name"
    HOST = "host"
    for name in standin_names():
        vars()[name.upper()] = name
