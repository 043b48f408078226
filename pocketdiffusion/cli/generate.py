"""The command generate."""

from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pocketdiffusion.cli.arguments import check_writable, open_picture
from pocketdiffusion.cli.console import Output
from pocketdiffusion.cli.options import BundleSampler, Folder, OneFormat, Quiet
from pocketdiffusion.runtime.errors import ProofError, UserError

if TYPE_CHECKING:
    from pocketdiffusion.runtime.bundle.bundle import Bundle
    from pocketdiffusion.runtime.pipeline import StepResult


@dataclass(frozen=True)
class PictureRequest:
    """A picture to draw. `steps`, `guidance`, `sampler` and `strength`: None for the bundle's default.
    `negative_prompt`: None for an absent one. `image`: None to start from noise."""

    prompt: str
    negative_prompt: str | None
    seed: int
    steps: int | None
    guidance: float | None
    sampler: str | None
    image: Path | None
    strength: float | None


NegativePrompt = Annotated[
    str | None,
    typer.Option(
        "--negative-prompt",
        metavar="PROMPT",
        help="The text that describes what the picture should not show. By default, the model's own default is "
        "used: an empty prompt, or zeros for Stable Diffusion XL.",
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="The seed of the noise, -2**63 to 2**64 - 1. The same seed draws the same picture as diffusers on a CPU, "
        "up to the error of the recipe.",
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="The number of denoising steps, 1 up to the largest count that the bundle has tables for. By default, the "
        "bundle's default, which `inspect` shows.",
    ),
]
Guidance = Annotated[
    float | None,
    typer.Option(
        metavar="SCALE",
        help="The guidance scale; 7.5 is common, 1 or less turns guidance off. By default, the bundle's default, which "
        "`inspect` shows.",
    ),
]
StartPicture = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A PNG or JPEG file to start from (image-to-image). It is resized to the bundle's picture size; the "
        "aspect ratio is not kept.",
    ),
]
Strength = Annotated[
    float | None,
    typer.Option(
        "--strength",
        metavar="FRACTION",
        help="How much of --image to change: the fraction of the steps that are run, above 0 and at most 1. Only "
        "with --image. By default, the bundle's default, which `inspect` shows.",
    ),
]


def generate(
    bundle: Folder,
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="The text that describes the picture. It may be empty.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The PNG file to write.")] = Path(
        "out.png"
    ),
    negative_prompt: NegativePrompt = None,
    seed: Seed = 0,
    steps: Steps = None,
    guidance: Guidance = None,
    sampler: BundleSampler = None,
    format: OneFormat = None,
    image: StartPicture = None,
    strength: Strength = None,
    low_memory: Annotated[
        bool,
        typer.Option(
            "--low-memory",
            help="Keep at most one graph in memory. The picture is the same; a step of several graphs takes longer.",
        ),
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Generate a picture with a bundle."""
    if guidance is not None and not isfinite(guidance):
        raise UserError(
            f"--guidance {guidance} is not a scale: give a finite number; 7.5 is common, 1 turns guidance off"
        )
    if strength is not None and image is None:
        raise UserError("--strength is for image-to-image: give --image FILE too, or leave it out")
    check_writable(output)
    shown = Output(quiet)
    with shown.show_progress(f"drawing {prompt!r}") as progress:
        from pocketdiffusion.runtime.bundle.bundle import open_bundle

        progress("hashes")
        opened = open_bundle(bundle)
        request = with_defaults(
            opened, PictureRequest(prompt, negative_prompt, seed, steps, guidance, sampler, image, strength)
        )
        last = draw(opened, request, format, low_memory, progress)
    check_picture(opened, request, last)
    write(opened, request, last, output)
    warn_of(opened, request, last, shown)
    assert last.picture is not None
    height, width, _ = last.picture.shape
    shown.print_line(f"{output}: {width}x{height}, seed {seed}, {request.steps} steps, {request.sampler}")


def with_defaults(bundle: "Bundle", request: PictureRequest) -> PictureRequest:
    """Return the request with the bundle's defaults in place of None."""
    defaults = bundle.manifest.defaults
    return replace(
        request,
        sampler=request.sampler or bundle.manifest.scheduler.default_sampler,
        steps=defaults.steps if request.steps is None else request.steps,
        guidance=defaults.guidance if request.guidance is None else request.guidance,
        strength=defaults.strength if request.strength is None else request.strength,
    )


def draw(
    bundle: "Bundle", request: PictureRequest, format: str | None, low_memory: bool, progress: Any
) -> "StepResult":
    """Return the last draft, which has the picture. Raise UserError as pipeline.generate does."""
    from pocketdiffusion.runtime import pipeline

    size = bundle.manifest.latents
    width, height = size.width * size.scale, size.height * size.scale
    start = None if request.image is None else open_picture(request.image, width, height)
    assert request.steps is not None and request.guidance is not None and request.strength is not None
    last: pipeline.StepResult | None = None
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
        low_memory=low_memory,
    ):
        progress(f"step {last.step} of {last.steps}")
    assert last is not None and last.picture is not None
    return last


def warn_of(bundle: "Bundle", request: PictureRequest, last: "StepResult", output: Output) -> None:
    """Warn about prompts that were cut off, and about a sampler whose first step is too late."""
    from pocketdiffusion.runtime.pipeline import find_table
    from pocketdiffusion.runtime.sampling.few_steps import describe_start

    for what, cut in (("prompt", last.truncated), ("negative prompt", last.negative_truncated)):
        if cut:
            output.warn(f"the {what} is too long: {cut!r} was cut off")
    assert request.sampler is not None and request.steps is not None
    if request.image is None and (line := describe_start(find_table(bundle, request.sampler, request.steps, 0))):
        output.warn(line)


def check_picture(bundle: "Bundle", request: PictureRequest, last: "StepResult") -> None:
    """Raise ProofError if the picture has NaN or infinity."""
    from pocketdiffusion.runtime.verify.finite import first_not_finite

    if last.decoded is not None and (place := first_not_finite(last.decoded)) is not None:
        raise ProofError(
            f"{bundle.folder}: the picture of {request.prompt!r} contains NaN or infinity, first at index "
            f"{list(place)}: no file was written; try another seed or prompt, or export with --recipe fp32"
        )


def write(bundle: "Bundle", request: PictureRequest, last: "StepResult", file: Path) -> None:
    """Write the picture as PNG with the request as metadata. Raise UserError, and leave no file, if writing fails."""
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
