"""The command compare."""

from collections.abc import Sequence
from math import inf, isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pocketdiffusion.cli.arguments import check_report, read_prompts
from pocketdiffusion.cli.console import Output
from pocketdiffusion.cli.extras import needs_export
from pocketdiffusion.cli.options import AllowUnexpected, Json, OneFormat, Quiet, Revision, Token
from pocketdiffusion.runtime.errors import ProofError, UserError

if TYPE_CHECKING:
    from pocketdiffusion.compare import Compared


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="The reference: a bundle, also a failed one, or a model.")],
    b: Annotated[
        str, typer.Argument(metavar="B", help="What is compared with A: a bundle, also a failed one, or a model.")
    ],
    prompts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A text file with one prompt a line, instead of those that B was judged by."),
    ] = None,
    seed: Annotated[int, typer.Option(help="The seed of the first prompt; each further prompt takes the next.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="The number of denoising steps.")] = 20,
    guidance: Annotated[float, typer.Option(help="The guidance scale, above 1.")] = 7.5,
    format: OneFormat = None,
    budget: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Percent: the first layer with a larger relative error is named. By default 1, for a lossy recipe 10.",
        ),
    ] = None,
    min_psnr: Annotated[
        float | None,
        typer.Option(metavar="DB", help="Exit with 1 where a picture is further from A's than this, in dB."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="A report to write, FILE.html; its numbers go to FILE.json."
        ),
    ] = None,
    revision: Revision = None,
    token: Token = None,
    allow_unexpected: AllowUnexpected = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare the pictures of two bundles or models.

    Both draw the same prompts. Shown is how far apart they are: pictures, steps, graphs, layers, sizes and times."""
    check_compare(guidance, min_psnr, file)
    wanted = None if prompts is None else read_prompts(prompts)
    output = Output(quiet, as_json)
    with output.progress(f"comparing {b} with {a}") as progress, needs_export():
        from pocketdiffusion.compare import compare_two

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
            say=progress,
        )
    finish_compare(a, b, compared, min_psnr, file, output)


def check_compare(guidance: float, min_psnr: float | None, file: Path | None) -> None:
    """Raise UserError where a bound is none, or the report cannot be written."""
    if not 1 < guidance < inf:
        raise UserError(f"guidance {guidance:g} is no scale to compare with: give more than 1, such as 7.5")
    if min_psnr is not None and isnan(min_psnr):
        raise UserError(f"--min-psnr {min_psnr} is no bound: give a number of dB")
    if file is not None:
        check_report(file)
        with needs_export():
            from pocketdiffusion.reports.compare import check_place
        check_place(file)


def finish_compare(
    a: str, b: str, compared: "Compared", min_psnr: float | None, file: Path | None, output: Output
) -> None:
    """Print and write what was found. Raises ProofError where pictures are not finite, or a bound does not hold."""
    from pocketdiffusion.cli.json_output import compare_record

    difference = compared.difference
    not_finite = difference.not_finite(a, b)
    broken = not_finite[0] if not_finite else ""
    if not broken and min_psnr is not None and not difference.lowest_db >= min_psnr:
        broken = f"a picture is {difference.lowest_db:.1f} dB from that of {a}, where {min_psnr:g} were asked for"
    output.json(lambda: compare_record(a, b, compared, broken))
    show_compared(compared, broken, not_finite, output)
    if file is not None:
        from pocketdiffusion.reports.compare import write_comparison

        write_comparison(file, compared, broken)
        output.say(f"{file} and {file.with_suffix('.json').name}")
    if broken:
        raise ProofError(broken if not_finite else f"{b}: {broken}")


def show_compared(compared: "Compared", broken: str, not_finite: Sequence[str], output: Output) -> None:
    """Print the answer in one sentence, then the tables. `broken` says which bound does not hold, or nothing."""
    from pocketdiffusion.cli.tables import difference_tables
    from pocketdiffusion.reports.answer import answer_comparison

    output.say(answer_comparison(compared, broken).sentence)
    output.say(f"the median picture is {compared.beside}")
    for line in compared.cut:
        output.warn(line)
    for line in (*not_finite, *filter(None, [compared.unnamed])):
        output.say(line)
    for table in difference_tables(compared):
        output.table(table)
