"""The command line. Options become plain arguments here; torch is imported only by the commands that need it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from pocketdiffusion.runtime.errors import PocketDiffusionError, ProofError, UserError

app = typer.Typer(
    help="Stable Diffusion on a phone: a checkpoint becomes a bundle proven equal to the original.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="a bundle, as export wrote it")]
Format = Annotated[str | None, typer.Option("--format", help="onnx; by default the target's or the bundle's own")]
Revision = Annotated[str | None, typer.Option(help="of a hub id: branch, tag or commit")]
Token = Annotated[str | None, typer.Option(help="of the hub, for models that want one")]
BUILT_IN = "emoji"


@app.command()
def targets() -> None:
    """Table of the phones that export knows."""
    from pocketdiffusion.export.targets import load_target, target_names

    table = Table("target", "phone", "SoC", "RAM", "OS", "artifacts")
    for name in target_names():
        t = load_target(name)
        artifacts = ", ".join(f"{a.format} {a.profile} {a.recipe}" for a in t.artifacts)
        ram = f"{t.memory_mb / 1024:.0f} GB" if t.memory_mb else "-"
        table.add_row(t.name, t.title, t.soc or "-", ram, t.os_floor or "-", artifacts)
    console.print(table)


@app.command()
def export(
    target: Annotated[str, typer.Option(help="a phone, see the command targets")],
    output: Annotated[Path, typer.Option("-o", "--output", help="the bundle's folder")],
    model: Annotated[str, typer.Argument(help="built-in name, diffusers folder, or hub id")] = BUILT_IN,
    recipe: Annotated[str | None, typer.Option(help="fp32 or fp16; by default the target's own")] = None,
    format: Format = None,
    profile: Annotated[
        str | None, typer.Option(help="ort (contrib operators) or std (standard operators only)")
    ] = None,
    revision: Revision = None,
    token: Token = None,
) -> None:
    """Export a checkpoint for a phone and prove the result equal to the original."""
    with needs_export():
        from pocketdiffusion import build
    with progress(console, f"exporting {model} for {target}") as say:
        exported = build.export(
            model,
            target,
            output,
            recipe=recipe,
            format=format,
            profile=profile,
            revision=revision,
            token=token,
            say=say,
        )
    console.print(verdict_table(exported.manifest.verdicts))
    console.print(
        f"{output} is whole, every verdict passed, bundle_id {exported.manifest.bundle_id[:16]}", markup=False
    )


@app.command()
def verify(
    bundle: Folder,
    against: Annotated[
        str | None, typer.Option(help="record this original afresh instead of the bundle's vectors")
    ] = None,
    revision: Revision = None,
    token: Token = None,
) -> None:
    """Judge a bundle again: every file's hash, every stage, every graph, whole pictures."""
    from pocketdiffusion.runtime.bundle import open_bundle
    from pocketdiffusion.runtime.gate import judge
    from pocketdiffusion.runtime.golden import read_golden

    with progress(console, f"verifying {bundle}") as say:
        say("hashes")
        opened = open_bundle(bundle)
        trajectories = read_golden(opened)
        if against is not None:
            with needs_export():
                from pocketdiffusion.export.checkpoint import open_checkpoint
                from pocketdiffusion.export.families import components
                from pocketdiffusion.export.reference import record
            checkpoint = open_checkpoint(against, revision=revision, token=token, say=say)
            trajectories = record(checkpoint, components(checkpoint), say=say)
        verdicts, _ = judge(opened, trajectories, say)
    console.print(verdict_table(verdicts))
    failed = [verdict for verdict in verdicts if not verdict.passed]
    if failed:
        raise ProofError(f"{bundle}: {failed[0].describe()}; {len(failed)} of {len(verdicts)} verdicts failed")
    console.print(f"{bundle} passed all {len(verdicts)} verdicts")


@app.command()
def generate(
    bundle: Folder,
    prompt: Annotated[str, typer.Argument(help="what to draw")],
    output: Annotated[Path, typer.Option("-o", "--output", help="the PNG file")] = Path("out.png"),
    negative_prompt: Annotated[str, typer.Option(help="what not to draw")] = "",
    seed: Annotated[int, typer.Option(help="the same seed gives the same picture")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="denoising steps")] = 20,
    guidance: Annotated[float, typer.Option(help="guidance scale; 1 is none")] = 7.5,
    sampler: Annotated[str | None, typer.Option(help="by default the checkpoint's own")] = None,
    format: Format = None,
    image: Annotated[Path | None, typer.Option(help="a picture to redraw (image-to-image)")] = None,
    strength: Annotated[float, typer.Option(help="of the redrawing, over 0 and at most 1")] = 0.8,
) -> None:
    """Draw a picture with a bundle's artifacts."""
    from pocketdiffusion.runtime import pipeline
    from pocketdiffusion.runtime.bundle import open_bundle
    from pocketdiffusion.runtime.image import read_picture, write_png

    check_writable(output)
    with progress(console, f"drawing {prompt!r}") as say:
        say("hashes")
        opened = open_bundle(bundle)
        size = opened.manifest.latents
        start = None if image is None else read_picture(image, size.width * size.scale, size.height * size.scale)
        sampler = sampler or opened.manifest.scheduler.default_sampler
        last: pipeline.Draft | None = None
        for last in pipeline.generate(
            opened,
            prompt,
            negative_prompt=negative_prompt,
            seed=seed,
            steps=steps,
            guidance=guidance,
            sampler=sampler,
            format=format,
            image=start,
            strength=strength,
        ):
            say(f"step {last.step} of {last.steps}")
    assert last is not None and last.picture is not None
    if last.cut:
        console.print(f"the prompt is too long: {last.cut!r} was cut off", markup=False)
    facts = {
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "seed": seed,
        "steps": steps,
        "guidance": guidance,
        "sampler": sampler,
        "bundle_id": opened.manifest.bundle_id,
    }
    write_png(output, last.picture, facts)
    console.print(
        f"{output}: {last.picture.shape[1]}x{last.picture.shape[0]}, seed {seed}, {steps} steps, {sampler}",
        markup=False,
    )


@app.command()
def inspect(
    what: Annotated[
        str, typer.Argument(metavar="DIR|MODEL", help="a bundle, a diffusers folder, a built-in name, a hub id")
    ],
    revision: Revision = None,
    token: Token = None,
) -> None:
    """Show components, shapes, parameters, sizes, precisions and verdicts. A bundle is hash-checked first."""
    from pocketdiffusion.runtime.bundle import open_unproven

    if (Path(what) / "manifest.json").exists() or (Path(what) / "manifest.sha256").exists():
        manifest = open_unproven(Path(what)).manifest
        for table in bundle_tables(manifest):
            console.print(table)
        failed = [v for v in manifest.verdicts if not v.passed]
        if failed:
            raise ProofError(f"{what} is a failed export: {len(failed)} of {len(manifest.verdicts)} verdicts failed")
        return
    with needs_export():
        from pocketdiffusion.export.checkpoint import open_checkpoint
        from pocketdiffusion.export.families import components
    checkpoint = open_checkpoint(what, revision=revision, token=token, say=console.print)
    table = Table(
        "component",
        "inputs",
        "outputs",
        "parameters",
        "stored as",
        title=f"{checkpoint.name}, licence {checkpoint.licence}",
    )
    for part in components(checkpoint):
        parameters = sum(count(ref.shape) for ref in part.weights.values())
        stored = ", ".join(sorted({ref.dtype for ref in part.weights.values()}))
        table.add_row(part.spec.name, shapes(part.spec.inputs), shapes(part.spec.outputs), f"{parameters:,}", stored)
    console.print(table)


def shapes(tensors: Any) -> str:
    return "\n".join(f"{t.name} {t.dtype}{list(t.shape)}" for t in tensors)


def count(shape: tuple[int, ...]) -> int:
    total = 1
    for dimension in shape:
        total *= dimension
    return total


def bundle_tables(manifest: Any) -> Iterator[Table]:
    """What inspect shows of a bundle."""
    facts = Table("fact", "value", title=f"{manifest.model.name} for {manifest.target.title}", show_header=False)
    facts.add_row("bundle_id", manifest.bundle_id)
    facts.add_row(
        "model", f"{manifest.model.pipeline}, {manifest.model.prediction_type}, licence {manifest.model.licence}"
    )
    size = manifest.latents
    facts.add_row(
        "picture",
        f"{size.width * size.scale}x{size.height * size.scale}, latents {size.channels}x{size.height}x{size.width}",
    )
    facts.add_row("default sampler", manifest.scheduler.default_sampler)
    facts.add_row("files", f"{len(manifest.files)}, {sum(f.size for f in manifest.files.values()) / 1e6:.1f} MB")
    yield facts
    graphs = Table("graph", "inputs", "outputs", "parameters", "MB", "storage", "arithmetic", "profile", "rewrites")
    for format, named in manifest.graphs.items():
        for name, g in named.items():
            mb = sum(manifest.files[path].size for path in g.files) / 1e6
            rewrites = "\n".join(f"{n} {k}" for k, n in g.rewrites.items())
            graphs.add_row(
                f"{format} {name}",
                shapes(g.spec.inputs),
                shapes(g.spec.outputs),
                f"{g.parameters:,}",
                f"{mb:.1f}",
                g.storage,
                g.arithmetic,
                g.profile,
                rewrites,
            )
    yield graphs
    yield verdict_table(manifest.verdicts)


def verdict_table(verdicts: Any) -> Table:
    """The ladder: one row a verdict, in the order in which they were judged."""
    table = Table(
        "subject", "rung", "format", "storage", "arithmetic", "PSNR dB", "floor", "largest error", "limit", "cases", ""
    )
    for v in verdicts:
        table.add_row(
            v.subject,
            v.rung,
            v.format or "-",
            v.storage,
            v.arithmetic,
            f"{v.psnr_db:.1f}",
            f"{v.floor_db:.0f}",
            f"{v.max_abs:.1e}",
            f"{v.max_abs_limit:.1e}",
            str(v.cases),
            "passed" if v.passed else "[bold red]FAILED",
        )
    return table


@contextmanager
def progress(console: Console, title: str) -> Iterator[Callable[[str], None]]:
    """A line that says what is being done; where the output is no terminal, one printed line per step."""
    if not console.is_terminal:
        console.print(title, markup=False)
        yield lambda step: console.print(f"  {step}", markup=False)
        return
    with console.status(title) as status:
        yield lambda step: status.update(f"{title}: {step}")


@contextmanager
def needs_export() -> Iterator[None]:
    """Turns the absence of torch and the converters into one line."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(f"this needs {error.name}: pip install 'pocketdiffusion[export]'") from error


def check_writable(output: Path) -> None:
    """Before the work, not after it. Raises UserError."""
    if output.is_dir() or not output.resolve().parent.is_dir():
        raise UserError(f"cannot write {output}: name a file in a folder that exists")


def run(command: Callable[[], object]) -> NoReturn:
    """Runs `command` and exits: 0, 1 for a failed proof, 2 for the user's mistake, 130 when interrupted."""
    try:
        command()
    except PocketDiffusionError as error:
        finish(str(error), error.exit_code)
    except KeyboardInterrupt:
        finish("interrupted", 130)
    sys.exit(0)


def finish(message: str, code: int) -> NoReturn:
    Console(stderr=True).print(
        f"pocketdiffusion: {message}", style="bold red", markup=False, highlight=False, soft_wrap=True
    )
    sys.exit(code)


def main() -> NoReturn:
    run(app)
