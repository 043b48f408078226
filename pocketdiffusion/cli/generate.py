"""The command generate."""

from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pocketdiffusion.cli.arguments import check_writable, open_picture
from pocketdiffusion.cli.console import Output
from pocketdiffusion.cli.options import Folder, OneFormat, Quiet, Sampler
from pocketdiffusion.runtime.errors import ProofError, UserError

if TYPE_CHECKING:
    from pocketdiffusion.runtime.bundle.bundle import Bundle
    from pocketdiffusion.runtime.pipeline import Draft


@dataclass(frozen=True)
class Request:
    """What to draw. None of `steps`, `guidance`, `sampler` and `strength` is the bundle's default; `negative_prompt`
    None is an absent one; `image` None draws from noise."""

    prompt: str
    negative_prompt: str | None
    seed: int
    steps: int | None
    guidance: float | None
    sampler: str | None
    image: Path | None
    strength: float | None


def generate(
    bundle: Folder,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to draw. May be empty.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The PNG file to write.")] = Path(
        "out.png"
    ),
    negative_prompt: Annotated[
        str | None,
        typer.Option(
            metavar="PROMPT", help="What not to draw. Without it, the model's own stand-in for no prompt is used."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="The seed of the noise: the same seed gives the same picture.")] = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="The number of denoising steps, instead of the bundle's default.")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(help="The guidance scale, instead of the bundle's default; 1 is no guidance.")
    ] = None,
    sampler: Sampler = None,
    format: OneFormat = None,
    image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A picture to redraw (image-to-image). It is scaled to fit.")
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(
            help="How much of the picture is redrawn, above 0 and at most 1, instead of the bundle's default."
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Draw a picture with a bundle's artifacts."""
    if guidance is not None and not isfinite(guidance):
        raise UserError(f"guidance {guidance} is no scale: 1 is none, 7.5 is usual")
    check_writable(output)
    shown = Output(quiet)
    with shown.progress(f"drawing {prompt!r}") as progress:
        from pocketdiffusion.runtime.bundle.bundle import open_bundle

        progress("hashes")
        opened = open_bundle(bundle)
        request = with_defaults(
            opened, Request(prompt, negative_prompt, seed, steps, guidance, sampler, image, strength)
        )
        last = draw(opened, request, format, progress)
    check_picture(opened, request, last)
    write(opened, request, last, output)
    warn_of(opened, request, last, shown)
    assert last.picture is not None
    height, width, _ = last.picture.shape
    shown.say(f"{output}: {width}x{height}, seed {seed}, {request.steps} steps, {request.sampler}")


def with_defaults(bundle: "Bundle", request: Request) -> Request:
    """Return the request with the bundle's defaults in place of what was not asked for."""
    defaults = bundle.manifest.defaults
    return replace(
        request,
        sampler=request.sampler or bundle.manifest.scheduler.default_sampler,
        steps=defaults.steps if request.steps is None else request.steps,
        guidance=defaults.guidance if request.guidance is None else request.guidance,
        strength=defaults.strength if request.strength is None else request.strength,
    )


def draw(bundle: "Bundle", request: Request, format: str | None, progress: Any) -> "Draft":
    """Return the last draft of the drawing, which has the picture. Raises UserError as pipeline.generate does."""
    from pocketdiffusion.runtime import pipeline

    size = bundle.manifest.latents
    width, height = size.width * size.scale, size.height * size.scale
    start = None if request.image is None else open_picture(request.image, width, height)
    assert request.steps is not None and request.guidance is not None and request.strength is not None
    last: pipeline.Draft | None = None
    for last in pipeline.generate(
        bundle,
        request.prompt,
        negative_prompt=request.negative_prompt,
        seed=request.seed,
        steps=request.steps,
        guidance=request.guidance,
        sampler=request.sampler,
        format=format,
        image=start,
        strength=request.strength,
    ):
        progress(f"step {last.step} of {last.steps}")
    assert last is not None and last.picture is not None
    return last


def warn_of(bundle: "Bundle", request: Request, last: "Draft", output: Output) -> None:
    """Warn of prompts that were cut off, and of a sampler that begins too late."""
    from pocketdiffusion.runtime.pipeline import find_table
    from pocketdiffusion.runtime.sampling.few_steps import describe_start

    for what, cut in (("prompt", last.cut), ("negative prompt", last.negative_cut)):
        if cut:
            output.warn(f"the {what} is too long: {cut!r} was cut off")
    assert request.sampler is not None and request.steps is not None
    if request.image is None and (line := describe_start(find_table(bundle, request.sampler, request.steps, 0))):
        output.warn(line)


def check_picture(bundle: "Bundle", request: Request, last: "Draft") -> None:
    """Raise ProofError where the picture is not finite."""
    from pocketdiffusion.runtime.verify.finite import first_not_finite

    if last.decoded is not None and (place := first_not_finite(last.decoded)) is not None:
        raise ProofError(
            f"{bundle.folder}: the picture of {request.prompt!r} is not finite, first at {list(place)}: it would be "
            "black; nothing is written, try another seed or prompt, or export with fp32"
        )


def write(bundle: "Bundle", request: Request, last: "Draft", file: Path) -> None:
    """Write the picture with what it was drawn from. Raises UserError, and leaves no file, where that fails."""
    from pocketdiffusion.runtime.image import write_png

    facts = {name: value for name, value in vars(request).items() if name not in ("image", "strength")}
    if request.negative_prompt is None:
        del facts["negative_prompt"]
    facts["bundle_id"] = bundle.manifest.bundle_id
    if request.image is not None:
        facts["strength"] = request.strength
    assert last.picture is not None
    try:
        write_png(file, last.picture, facts)
    except OSError as error:
        if file.is_file():
            file.unlink()
        raise UserError(f"cannot write {file}: {error.strerror or error}") from None
