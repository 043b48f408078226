"""The command line. Options become plain arguments here; torch is imported only by the commands that need it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf, isfinite, isnan
from pathlib import Path
from shlex import join
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NoReturn

import typer

from pocketdiffusion.cli.arguments import check_report, check_writable, open_picture, parse_size, read_prompts
from pocketdiffusion.cli.console import console, progress, run, say
from pocketdiffusion.cli.encoding import check_arguments, ensure_utf8
from pocketdiffusion.cli.options import (
    BUILT_IN,
    STANDINS,
    AllowUnexpected,
    BudgetMb,
    Folder,
    MinPsnr,
    Model,
    Phone,
    Place,
    Revision,
    Sampler,
    Size,
    Standins,
    Token,
)
from pocketdiffusion.cli.tables import (
    bundle_tables,
    difference_tables,
    doctor_table,
    model_tables,
    not_run_table,
    size_table,
    target_table,
    verdict_table,
)
from pocketdiffusion.runtime.errors import ProofError, UserError

app = typer.Typer(
    help="Stable Diffusion on a phone: a checkpoint becomes a bundle proven equal to the original.",
    add_completion=False,
    pretty_exceptions_enable=False,
)

USAGE_ERROR: Any = typer.BadParameter.__base__  # click's UsageError, or typer's own since it carries a copy of click


@app.command()
def targets() -> None:
    """Show the phones that export knows."""
    from pocketdiffusion.export.targets import load_target, target_names

    console.print(target_table([load_target(name) for name in target_names()]))


@app.command()
def export(
    target: Phone,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="the bundle's folder")],
    model: Model = BUILT_IN,
    recipe: Annotated[
        str | None, typer.Option(help="such as fp16, w8, palette6, or a JSON file; by default the target's own")
    ] = None,
    budget_mb: BudgetMb = None,
    min_psnr: MinPsnr = None,
    format: Annotated[
        str | None, typer.Option(help="onnx, coreml or tflite; by default all that the target takes")
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="ort (onnxruntime's operators too) or std (standard ones only); by default the target's own"),
    ] = None,
    sampler: Sampler = None,
    size: Size = None,
    revision: Revision = None,
    token: Token = None,
    allow_unexpected: AllowUnexpected = None,
) -> None:
    """Export a checkpoint for a phone and prove the result equal to the original."""
    from pocketdiffusion.runtime.verify.controls import describe_pictures
    from pocketdiffusion.runtime.verify.known_units import warn_of_units
    from pocketdiffusion.runtime.verify.skipped import units_not_run

    width, height = parse_size(size)
    with progress(f"exporting {model} for {target}") as step:
        step("loading torch")
        with needs_export():
            from pocketdiffusion import build
        exported = build.export(
            model,
            target,
            output,
            recipe=recipe,
            budget_mb=budget_mb,
            min_psnr=min_psnr,
            format=format,
            profile=profile,
            sampler=sampler,
            width=width,
            height=height,
            revision=revision,
            token=token,
            allow_unexpected=allow_unexpected or (),
            say=step,
        )
    console.print(verdict_table(exported.manifest.verdicts))
    for line in describe_pictures(exported.manifest.verdicts, [t.controls for t in exported.manifest.golden]):
        say(line)
    if skipped := units_not_run(exported.manifest):
        console.print(not_run_table(skipped))
    if (scheduler := exported.manifest.scheduler).replaced:
        say(f"it draws with {scheduler.default_sampler} in place of the checkpoint's own {scheduler.replaced}")
    say(f"{output} is whole, every verdict passed, bundle_id {exported.manifest.bundle_id[:16]}")
    for line in warn_of_units(exported.manifest):
        say(line)


@app.command()
def search(
    target: Phone,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="the recipe, a JSON file")],
    model: Model = BUILT_IN,
    budget_mb: BudgetMb = None,
    min_psnr: MinPsnr = None,
    format: Annotated[str | None, typer.Option(help="onnx, coreml or tflite; where the target takes several")] = None,
    profile: Annotated[str | None, typer.Option(help="such as ios18 or std; by default the target's own")] = None,
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="to search with, one a line; by default those of emoji")
    ] = None,
    sampler: Sampler = None,
    size: Size = None,
    revision: Revision = None,
    token: Token = None,
    allow_unexpected: AllowUnexpected = None,
) -> None:
    """Search the best mixed recipe: for export --recipe FILE.json. An interrupted search goes on where it was."""
    width, height = parse_size(size)
    with progress(f"searching a recipe of {model} for {target}") as step:
        step("loading torch")
        with needs_export():
            from pocketdiffusion import search as searching
            from pocketdiffusion.choices import choose, one_artifact
            from pocketdiffusion.export.targets import load_target
        artifact = one_artifact(choose(load_target(target), "mixed", format, profile))
        found = searching.search(
            model,
            artifact,
            output,
            budget_mb=budget_mb,
            min_psnr=min_psnr,
            sampler=sampler,
            width=width,
            height=height,
            revision=revision,
            token=token,
            allow_unexpected=allow_unexpected or (),
            prompts=prompts or searching.PROMPTS,
            say=step,
        )
    console.print(size_table(found.uniform, found.searched))
    for line in found.cut:
        say(line)
    say(f"{output}: {found.measured.nbytes / 1e6:.2f} MB, pictures' median {found.measured.median_db:.1f} dB")
    given = {"--format": format, "--profile": profile, "--sampler": sampler, "--size": size, "--revision": revision}
    options = [word for option, value in given.items() if value is not None for word in (option, value)]
    options += [word for pattern in allow_unexpected or () for word in ("--allow-unexpected", pattern)]
    out = str(output.with_suffix(""))
    command = join(["export", model, "--target", target, "--recipe", str(output), *options, "-o", out])
    say(f"the plot is {output.with_suffix('.svg')}; now: pocketdiffusion {command}")


@app.command()
def verify(
    bundle: Folder,
    against: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="the original to record afresh, in place of the bundle's own vectors"),
    ] = None,
    on: Annotated[
        Place,
        typer.Option(
            metavar="host|arm64|gpu", help="this machine, the phone's instruction set, or its GPU delegate; see doctor"
        ),
    ] = Place.HOST,
    core: Annotated[
        str | None, typer.Option(help="of arm64: a processor, as qemu calls it; by default the target's own")
    ] = None,
    limit: Annotated[float, typer.Option(min=1, help="of arm64 and gpu: seconds for one call of one graph")] = 300,
    device_report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="what an app found on a phone: shown beside the host's verdicts, in their place"
        ),
    ] = None,
    standins: Standins = STANDINS,
    revision: Revision = None,
    token: Token = None,
    allow_unexpected: AllowUnexpected = None,
) -> None:
    """Judge a bundle again: every file's hash, every stage, every graph, whole pictures.

    On a stand-in for the phone, its graphs and one small picture. Of a runtime part alone, what it holds: conformance
    vectors, a golden case for each graph, one picture."""
    if device_report is not None:
        from pocketdiffusion.cli.device_report import show_device_report

        if against is not None or on is not Place.HOST:
            raise UserError("--device-report shows what was judged: leave out --against and --on, which judge anew")
        show_device_report(bundle, device_report)
        return
    from pocketdiffusion.quantize.stated_floors import check_floors, own_floors
    from pocketdiffusion.runtime.bundle.bundle import open_bundle
    from pocketdiffusion.runtime.bundle.verdicts import blame
    from pocketdiffusion.runtime.devices.judge import find_place, judge_on
    from pocketdiffusion.runtime.verify.compare import other_shapes
    from pocketdiffusion.runtime.verify.conformance import judge_conformance
    from pocketdiffusion.runtime.verify.contradictions import check_contradictions
    from pocketdiffusion.runtime.verify.controls import describe_pictures
    from pocketdiffusion.runtime.verify.gate import judge
    from pocketdiffusion.runtime.verify.golden import read_golden
    from pocketdiffusion.runtime.verify.known_units import warn_of_units
    from pocketdiffusion.runtime.verify.self_test import NOT_JUDGED, judge_runtime_part
    from pocketdiffusion.runtime.verify.skipped import NotRun, units_not_run

    with progress(f"verifying {bundle}") as step:
        step("hashes")
        opened = open_bundle(bundle)
        alone = not opened.manifest.has_proof and against is None and on is Place.HOST
        trajectories = read_golden(opened) if not alone and against is None else []
        if against is not None:
            with needs_export():
                from pocketdiffusion.export.conformance import write_conformance
                from pocketdiffusion.export.reference.record import record
                from pocketdiffusion.source import open_model
            latents = opened.manifest.latents
            scheduler = opened.manifest.scheduler
            checkpoint, parts = open_model(
                against,
                width=latents.width * latents.scale,
                height=latents.height * latents.scale,
                revision=revision,
                token=token,
                sampler=scheduler.default_sampler if scheduler.replaced else None,
                allow_unexpected=allow_unexpected or (),
                say=step,
            )
            graphs = next(iter(opened.manifest.graphs.values()))
            specs = {part.spec.name: part.spec for part in parts}, {name: graph.spec for name, graph in graphs.items()}
            for name, theirs, ours in other_shapes(*specs):
                raise UserError(
                    f"{against} is not the model of {bundle}: {name} is {list(theirs)} there, and {list(ours)} here"
                )
            trajectories = record(checkpoint, parts, say=step, controls=on is Place.HOST)
        skipped: list[NotRun] = []
        tells: dict[str, str] = {}
        if on is Place.HOST:
            step("contradictions")
            check_contradictions(opened)
            check_floors(opened)
            verdicts = judge_runtime_part(opened, step) if alone else judge(opened, trajectories, step)[0]
            conformance, tells = judge_conformance(opened, say=step)
            if against is not None:
                step("conformance, asked again")
                with TemporaryDirectory() as afresh:
                    write_conformance(Path(afresh), checkpoint)
                    conformance += judge_conformance(opened, afresh=Path(afresh))[0]
            verdicts += conformance
            skipped = units_not_run(opened.manifest)
        else:
            core = core or core_of(opened.manifest.target.name)
            place = find_place(on.value, standins.expanduser(), core, limit)
            verdicts, skipped = judge_on(place, opened, trajectories, step)
    console.print(verdict_table(v for v in verdicts if v.subject not in tells or not v.passed))
    if tells:
        met = sum(v.passed for v in verdicts if v.subject in tells)
        count = sum(v.subject in tells for v in verdicts)
        say(f"{met} of {count} conformance vectors, computed by the original libraries, are met")
    if on is Place.HOST and not alone:
        for line in describe_pictures(verdicts, [t.controls for t in trajectories]):
            say(line)
    for recipe in own_floors(opened.manifest):
        say(f"the floors of the recipe {recipe} are the bundle's own: no recipe of this version has them")
    if alone:
        say(f"proof part not installed: not judged were {NOT_JUDGED}")
    if skipped:
        console.print(not_run_table(skipped))
    failed = [verdict for verdict in verdicts if not verdict.passed]
    if failed:
        told = blame(failed)
        wrong = f"; {tells[told.subject]}" if told.subject in tells else ""
        raise ProofError(f"{bundle}: {told.describe()}; {len(failed)} of {len(verdicts)} verdicts failed{wrong}")
    if not verdicts:
        raise ProofError(f"{bundle}: nothing of it was run on {on.value}: {skipped[0].reason}")
    where = " on its runtime part" if alone else f" on {on.value}" if on is not Place.HOST else ""
    say(f"{bundle} passed all {len(verdicts)} verdicts{where}")
    for line in warn_of_units(opened.manifest):
        say(line)


@app.command()
def setup(
    names: Annotated[list[str], typer.Argument(metavar="arm64|gpu", help="the stand-ins to set up")],
    standins: Standins = STANDINS,
) -> None:
    """Set up stand-ins for a phone, from the package registries that this machine is configured for."""
    from pocketdiffusion.runtime.devices.packages import NAMES
    from pocketdiffusion.runtime.devices.setup import set_up

    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise UserError(f"there is no stand-in {unknown[0]}: known are {', '.join(NAMES)}")
    for name in names:
        say(f"{name} is set up in {set_up(name, standins.expanduser(), say)}")


@app.command()
def doctor(standins: Standins = STANDINS) -> None:
    """Show which engines, toolchains and stand-ins this machine has, and how to get the others."""
    from pocketdiffusion.cli.doctor import examine

    console.print(doctor_table(examine(standins.expanduser())))


@app.command()
def generate(
    bundle: Folder,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="what to draw; may be empty")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="the PNG file")] = Path("out.png"),
    negative_prompt: Annotated[
        str | None,
        typer.Option(metavar="PROMPT", help="what not to draw; without it the model's own way of none is taken"),
    ] = None,
    seed: Annotated[int, typer.Option(help="the same seed gives the same picture")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="denoising steps; by default the bundle's")] = None,
    guidance: Annotated[float | None, typer.Option(help="guidance scale; 1 is none; by default the bundle's")] = None,
    sampler: Annotated[str | None, typer.Option(help="such as ddim, euler, dpmpp_2m; by default the model's")] = None,
    format: Annotated[str | None, typer.Option(help="onnx, coreml or tflite; by default the bundle's first")] = None,
    image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="a picture to redraw (image-to-image), scaled to fit")
    ] = None,
    strength: Annotated[
        float | None, typer.Option(help="of the redrawing, over 0 and at most 1; by default the bundle's")
    ] = None,
) -> None:
    """Draw a picture with a bundle's artifacts."""
    from pocketdiffusion.runtime import pipeline
    from pocketdiffusion.runtime.bundle.bundle import open_bundle
    from pocketdiffusion.runtime.image import write_png
    from pocketdiffusion.runtime.sampling.few_steps import describe_start
    from pocketdiffusion.runtime.verify.finite import first_not_finite

    if guidance is not None and not isfinite(guidance):
        raise UserError(f"guidance {guidance} is no scale: 1 is none, 7.5 is usual")
    check_writable(output)
    with progress(f"drawing {prompt!r}") as step:
        step("hashes")
        opened = open_bundle(bundle)
        size = opened.manifest.latents
        start = None if image is None else open_picture(image, size.width * size.scale, size.height * size.scale)
        sampler = sampler or opened.manifest.scheduler.default_sampler
        defaults = opened.manifest.defaults
        steps = defaults.steps if steps is None else steps
        guidance = defaults.guidance if guidance is None else guidance
        strength = defaults.strength if strength is None else strength
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
            step(f"step {last.step} of {last.steps}")
    assert last is not None and last.picture is not None
    for what, cut in (("prompt", last.cut), ("negative prompt", last.negative_cut)):
        if cut:
            say(f"the {what} is too long: {cut!r} was cut off")
    if image is None and (line := describe_start(pipeline.find_table(opened, sampler, steps, 0))):
        say(line)
    if last.decoded is not None and (place := first_not_finite(last.decoded)) is not None:
        raise ProofError(
            f"{bundle}: the picture of {prompt!r} is not finite, first at {list(place)}: it would be black; nothing is "
            "written, try another seed or prompt, or export with fp32"
        )
    facts = {
        "prompt": prompt,
        **({} if negative_prompt is None else {"negative_prompt": negative_prompt}),
        "seed": seed,
        "steps": steps,
        "guidance": guidance,
        "sampler": sampler,
        "bundle_id": opened.manifest.bundle_id,
    }
    if image is not None:
        facts["strength"] = strength
    try:
        write_png(output, last.picture, facts)
    except OSError as error:
        if output.is_file():
            output.unlink()
        raise UserError(f"cannot write {output}: {error.strerror or error}") from None
    say(f"{output}: {last.picture.shape[1]}x{last.picture.shape[0]}, seed {seed}, {steps} steps, {sampler}")


@app.command()
def runtime_part(
    bundle: Folder,
    output: Annotated[Path, typer.Argument(metavar="OUT", help="the folder to write")],
) -> None:
    """Copy the files of a bundle that an app ships: those that drawing needs, without golden data and reports."""
    from pocketdiffusion.runtime.bundle.runtime_part import copy_runtime_part

    with progress(f"copying {bundle}") as step:
        step("hashes")
        copied = copy_runtime_part(bundle, output)
    size = sum(entry.size for entry in copied.manifest.files.values() if entry.role == "runtime")
    say(f"{output} is the runtime part, {size / 1e6:.1f} MB, runtime_id {copied.manifest.runtime_id[:16]}")


@app.command()
def deploy(
    bundle: Folder,
    app: Annotated[
        str, typer.Option(metavar="APP", help="android: the demo app, by adb; ios: what Xcode builds into it")
    ],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="the bundle's name in the app; by default the folder's")
    ] = None,
    phone: Annotated[
        str | None,
        typer.Option(metavar="SERIAL", help="where several phones are connected: one that adb devices lists"),
    ] = None,
) -> None:
    """Check that an app can run a bundle, and put its runtime part where the app finds it."""
    from pocketdiffusion.deploy import deploy as put

    with progress(f"deploying {bundle} to the app {app}") as step:
        done = put(bundle, app, name=name, phone=phone, say=step)
    say(done)


@app.command()
def reader_kit(
    output: Annotated[Path, typer.Argument(metavar="OUT", help="the folder to write")],
    format: Annotated[
        str | None, typer.Option(help="onnx, coreml or tflite; by default the first of the target generic")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="of the models' weights; by default a new one")] = None,
) -> None:
    """Write tiny bundles with which a reader in any language proves itself in seconds, and what they should draw."""
    with progress(f"writing {output}") as step:
        step("loading torch")
        with needs_export():
            from pocketdiffusion.reader_kit import write_kit
        count = write_kit(output, format=format, seed=seed, say=step)
    say(f"{output} holds tiny bundles, and in requests.json what to draw with them: {count} pictures")


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="a bundle, also a failed one, or a model, to compare with")],
    b: Annotated[str, typer.Argument(metavar="B", help="a bundle, also a failed one, or a model")],
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="one prompt a line; by default those that B was judged by")
    ] = None,
    seed: Annotated[int, typer.Option(help="of the first prompt; each further one takes the next")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="denoising steps")] = 20,
    guidance: Annotated[float, typer.Option(help="guidance scale, over 1")] = 7.5,
    format: Annotated[
        str | None, typer.Option(help="onnx, coreml or tflite, of both; by default each one's first")
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            min=0, help="percent: the first layer that errs more is named; by default 1, or 10 of a lossy recipe"
        ),
    ] = None,
    min_psnr: Annotated[float | None, typer.Option(help="dB: exit with 1 where a picture is further from A's")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="a report.html; numbers go to report.json")
    ] = None,
    revision: Revision = None,
    token: Token = None,
    allow_unexpected: AllowUnexpected = None,
) -> None:
    """Draw the same prompts with two, and show how far they are apart: pictures, steps, graphs, layers, sizes, time."""
    from pocketdiffusion.compare import compare_two

    if not 1 < guidance < inf:
        raise UserError(f"guidance {guidance:g} is no scale to compare with: give more than 1, such as 7.5")
    if min_psnr is not None and isnan(min_psnr):
        raise UserError(f"--min-psnr {min_psnr} is no bound: give a number of dB")
    if output is not None:
        check_report(output)
        with needs_export():
            from pocketdiffusion.reports import compare as comparison
        comparison.check_place(output)
    wanted = None if prompts is None else read_prompts(prompts)
    with progress(f"comparing {b} with {a}") as step, needs_export():
        compared = compare_two(
            a,
            b,
            prompts=wanted,
            seed=seed,
            steps=steps,
            guidance=guidance,
            format=format,
            budget=None if budget is None else budget / 100,
            revision=revision,
            token=token,
            allow_unexpected=allow_unexpected or (),
            say=step,
        )
    difference = compared.difference
    for table in difference_tables(compared):
        console.print(table)
    say(
        f"pictures: median {difference.median_db:.1f} dB, minimum {difference.lowest_db:.1f} dB"
        + ("" if compared.ratio is None else f"; a UNet call takes {compared.ratio:.2f} times as long")
    )
    say(f"beside the original's own pictures the median is {compared.beside}")
    for line in compared.cut:
        say(line)
    say(compared.unnamed or compared.blame or f"no layer errs by more than {compared.percent}")
    not_finite = difference.not_finite(a, b)
    for line in not_finite:
        say(line)
    broken = not_finite[0] if not_finite else ""
    if not broken and min_psnr is not None and not difference.lowest_db >= min_psnr:
        broken = f"a picture is {difference.lowest_db:.1f} dB from that of {a}, where {min_psnr:g} were asked for"
    if output is not None:
        comparison.write_comparison(output, compared, broken)
        say(f"{output} and {output.with_suffix('.json').name}")
    if broken:
        raise ProofError(broken if not_finite else f"{b}: {broken}")


@app.command()
def inspect(
    what: Annotated[
        str, typer.Argument(metavar="DIR|MODEL", help="a bundle, a built-in name, a diffusers folder, or a hub id")
    ],
    revision: Revision = None,
    token: Token = None,
    allow_unexpected: AllowUnexpected = None,
) -> None:
    """Show components, shapes, parameters, sizes, precisions and verdicts. A bundle is hash-checked first."""
    from pocketdiffusion.runtime.bundle.bundle import open_unproven

    if (Path(what) / "manifest.json").exists() or (Path(what) / "manifest.sha256").exists():
        manifest = open_unproven(Path(what)).manifest
        for table in bundle_tables(manifest):
            console.print(table)
        failed = [v for v in manifest.verdicts if not v.passed]
        if not manifest.has_proof and not manifest.proof.passed:
            raise ProofError(f"{what} is the runtime part of a failed export")
        if failed:
            raise ProofError(f"{what} is a failed export: {len(failed)} of {len(manifest.verdicts)} verdicts failed")
        return
    with needs_export():
        from pocketdiffusion.export.checkpoints import open_checkpoint
        from pocketdiffusion.export.component import check_finite
        from pocketdiffusion.export.families import components
    allowed = allow_unexpected or ()
    checkpoint = open_checkpoint(what, revision=revision, token=token, allow_unexpected=allowed, say=say)
    parts = components(checkpoint, say=say)
    shown = [
        (
            part.spec.name,
            part.spec.inputs,
            part.spec.outputs,
            [ref.shape for ref in part.weights.values()],
            ", ".join(sorted({ref.dtype for ref in part.weights.values()})),
        )
        for part in parts
    ]
    for table in model_tables(f"{checkpoint.name}, licence {checkpoint.licence}", shown):
        console.print(table)
    check_finite(checkpoint.content, parts)


def core_of(target: str) -> str:
    """The processor, as qemu calls it, that the target's file names; else one that any phone's is at least."""
    from pocketdiffusion.export.targets import load_target, target_names
    from pocketdiffusion.runtime.devices.arm64 import CORE

    return (load_target(target).core if target in target_names() else None) or CORE


@contextmanager
def needs_export() -> Iterator[None]:
    """Turns the absence of torch and the converters into one line."""
    try:
        yield
    except ModuleNotFoundError as error:
        if str(error.name).startswith("pocketdiffusion"):
            raise
        raise UserError(f"this needs {error.name}: pip install 'pocketdiffusion[export]'") from error


def call(arguments: list[str]) -> None:
    """Runs one command. Raises UserError where the arguments are none that a command takes."""
    check_arguments(arguments)
    try:
        code = app(arguments or ["--help"], prog_name="pocketdiffusion", standalone_mode=False)
    except USAGE_ERROR as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "pocketdiffusion"
        raise UserError(f"{error.format_message().rstrip('.')}; see {path} --help") from None
    except typer.Abort:
        raise KeyboardInterrupt from None
    if code == 130:  # so typer hands on an interrupt
        raise KeyboardInterrupt


def main() -> NoReturn:
    ensure_utf8()
    run(lambda: call(sys.argv[1:]))
