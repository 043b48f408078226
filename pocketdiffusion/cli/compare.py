"""The command compare."""

from collections.abc import Sequence
from math import inf, isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pocketdiffusion.cli.console import Output
from pocketdiffusion.cli.extras import needs_export
from pocketdiffusion.cli.options import AllowUnexpected, Json, OneFormat, Quiet, Revision, Token
from pocketdiffusion.files import check_report, read_prompts
from pocketdiffusion.runtime.errors import ProofError, UserError

if TYPE_CHECKING:
    from pocketdiffusion.compare import Compared

LayerBudget = Annotated[
    float | None,
    typer.Option(
        "--layer-budget",
        min=0,
        metavar="PERCENT",
        help="The relative error (norm of the difference over norm of A's output) in percent above which a layer "
        "is reported. By default, 1, or 10 if the recipe of B is lossy. It does not change the exit code.",
    ),
]
Guidance = Annotated[
    float,
    typer.Option(
        metavar="SCALE",
        help="The guidance scale. It must be above 1, so that both halves of guidance are compared.",
    ),
]
LeastPsnr = Annotated[
    float | None,
    typer.Option(
        "--min-psnr",
        metavar="DB",
        help="Exit with 1 if the PSNR of any picture of B against A's is lower than this, in dB. By default, no bound.",
    ),
]


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="The reference: a model, or a bundle (DIR.failed too).")],
    b: Annotated[
        str, typer.Argument(metavar="B", help="The candidate to compare with A: a model, or a bundle (DIR.failed too).")
    ],
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A text file with one prompt per line. By default, the recorded prompts of B are used."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(metavar="N", help="The seed of the first prompt. Each further prompt uses the next number.")
    ] = 0,
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="The number of denoising steps.")] = 20,
    guidance: Guidance = 7.5,
    format: OneFormat = None,
    budget: LayerBudget = None,
    min_psnr: LeastPsnr = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="The HTML report to write, FILE.html. Its numbers are written to FILE.json.",
        ),
    ] = None,
    revision: Revision = None,
    token: Token = None,
    allow_unexpected: AllowUnexpected = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare the pictures of two bundles or models.

    Both generate the same prompts. The tables show the differences of pictures, steps, graphs and layers, and the sizes
    and times of both."""
    check_compare(guidance, min_psnr, file)
    wanted = None if prompts is None else read_prompts(prompts)
    output = Output(quiet, as_json)
    with output.show_progress(f"comparing {b} with {a}") as progress, needs_export():
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
            progress=progress,
        )
    finish_compare(a, b, compared, min_psnr, file, output)


def check_compare(guidance: float, min_psnr: float | None, file: Path | None) -> None:
    """Raise UserError if an option has an impossible value, or the report cannot be written."""
    if not 1 < guidance < inf:
        raise UserError(
            f"--guidance {guidance:g} cannot be used to compare, because the negative prompt is not drawn at 1 "
            "or less: give more than 1, such as 7.5"
        )
    if min_psnr is not None and isnan(min_psnr):
        raise UserError(f"--min-psnr {min_psnr} is not a number: give dB, such as 40")
    if file is not None:
        check_report(file)
        with needs_export():
            from pocketdiffusion.reports.compare import check_report_files
        check_report_files(file)


def finish_compare(
    a: str, b: str, compared: "Compared", min_psnr: float | None, file: Path | None, output: Output
) -> None:
    """Print the comparison, and write it to `file`. Raise ProofError if a picture is not finite or has less than
    `min_psnr` dB."""
    from pocketdiffusion.cli.json_output import compare_record

    difference = compared.difference
    not_finite = difference.not_finite(a, b)
    broken = not_finite[0] if not_finite else ""
    if not broken and min_psnr is not None and not difference.lowest_db >= min_psnr:
        broken = (
            f"a picture has {difference.lowest_db:.1f} dB PSNR against {a}, and --min-psnr requires {min_psnr:g} dB"
        )
    output.json(lambda: compare_record(a, b, compared, broken))
    show_compared(compared, broken, not_finite, output)
    if file is not None:
        from pocketdiffusion.reports.compare import write_comparison

        write_comparison(file, compared, broken)
        output.print_line(f"wrote {file} and {file.with_suffix('.json').name}")
    if broken:
        raise ProofError(broken if not_finite else f"{b}: {broken}")


def show_compared(compared: "Compared", broken: str, not_finite: Sequence[str], output: Output) -> None:
    """Print the answer in one sentence, then the tables. `broken`: the bound that does not hold, "" if none."""
    from pocketdiffusion.cli.tables import difference_tables
    from pocketdiffusion.reports.answer import answer_comparison

    output.print_line(answer_comparison(compared, broken).sentence)
    subject = "picture" if len(compared.difference.pictures) == 1 else "median picture"
    output.print_line(f"the {subject} is {compared.against_controls}")
    for line in compared.truncated:
        output.warn(line)
    for line in (*not_finite, *filter(None, [compared.no_layers_reason])):
        output.print_line(line)
    for table in difference_tables(compared):
        output.table(table)
