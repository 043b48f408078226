"""Options and arguments that several commands share: one name, one meaning, one help text."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="a bundle, as export wrote it")]
Phone = Annotated[str, typer.Option(metavar="PHONE", help="a phone, see the command targets")]
Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="a built-in name, a diffusers folder, or a hub id (user/model)")
]
Size = Annotated[str | None, typer.Option(metavar="WxH", help="of the pictures, in pixels; by default the model's own")]
Sampler = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="in place of the checkpoint's own scheduler, such as ddim"),
]
Revision = Annotated[str | None, typer.Option(help="of a hub id: branch, tag or commit")]
Token = Annotated[str | None, typer.Option(help="of the hub, for models that want one")]
AllowUnexpected = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="tensors that nothing uses to pass over, such as 'extra.*'; may be repeated"),
]
Standins = Annotated[Path, typer.Option(metavar="FOLDER", help="where setup puts the stand-ins for a phone")]
BudgetMb = Annotated[float | None, typer.Option(help="of the recipe mixed: MB that all weights may take")]
MinPsnr = Annotated[float | None, typer.Option(help="of the recipe mixed: dB that its pictures must have, the median")]
BUILT_IN = "emoji"
STANDINS = Path("~/.cache/pocketdiffusion/standins")


class Place(Enum):
    """Where verify runs the graphs."""

    HOST = "host"
    ARM64 = "arm64"
    GPU = "gpu"
