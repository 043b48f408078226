"""`make demo`: export the built-in model for three phones, draw with the artifacts, compare with the original.

    python -m pocketdiffusion.demo FOLDER [TARGET ...]

The model is recorded once. Then it is exported for the phones in child processes, as many at once as there are cores,
while this process draws the sample sheet with the original. Exits with 1 if a verdict fails, or if a phone's pictures
are below the gate's floors for fp16.
"""

import os
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.managers import SyncManager
from pathlib import Path
from queue import Queue
from statistics import median
from threading import Thread
from time import perf_counter

from rich.table import Table

from pocketdiffusion.build import export_original
from pocketdiffusion.cli.console import run, show_progress, stdout
from pocketdiffusion.cli.options import RECORDINGS
from pocketdiffusion.cli.tables import verdict_table
from pocketdiffusion.export.original import Original, open_model, record_original
from pocketdiffusion.export.parent import follow_parent
from pocketdiffusion.export.reference.record import Request, record
from pocketdiffusion.export.targets import load_target
from pocketdiffusion.models.emoji.prompts import SHEET
from pocketdiffusion.reports.stage_times import timed
from pocketdiffusion.runtime.bundle.bundle import Bundle
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.image import contact_sheet, write_png
from pocketdiffusion.runtime.progress import Progress
from pocketdiffusion.runtime.verify.pictures import PictureReport, draw_pictures
from pocketdiffusion.runtime.verify.recording import Trajectory
from pocketdiffusion.runtime.verify.tolerances import PICTURE_FLOORS_DB

PHONES = ("pixel-8", "galaxy-s24", "iphone-15")
COMPARED = 12  # prompts that every phone draws; the first phone draws the complete sheet
SHOWN = 4  # prompts of each phone in formats.png
Lines = Queue[tuple[str, str]]  # target, line of progress


def demo(folder: Path, targets: Sequence[str]) -> None:
    """Export for `targets` below `folder`, draw the sample sheet with each, and print verdicts and pictures' PSNR."""
    begun = perf_counter()
    with show_progress("emoji", log=True) as progress:
        original = record_original(*open_model("emoji"), progress=progress, recordings=RECORDINGS.expanduser())
        try:
            bundles, originals, drawn = export_and_draw(original, targets, folder, progress)
        except BrokenProcessPool:
            raise UserError(
                "an exporting process was killed, probably because memory ran out: close other programs and run again"
            ) from None
    for target in targets:
        stdout().print(f"[bold]{target}")
        stdout().print(verdict_table(bundles[target].manifest.verdicts))
    sheet = contact_sheet([report.picture for report in drawn[targets[0]]], columns=6)
    write_png(folder / "sheet.png", sheet, {"prompts": list(SHEET)})
    rows = [[t.picture for t in originals], *([report.picture for report in reports] for reports in drawn.values())]
    formats = contact_sheet([picture for row in rows for picture in row[:SHOWN]], columns=SHOWN)
    write_png(
        folder / "formats.png", formats, {"rows": ["original", *(reports[0].format for reports in drawn.values())]}
    )
    for target, reports in drawn.items():
        stdout().print(picture_table(target, reports))
    for target, reports in drawn.items():
        check(target, reports)
    stdout().print(f"pictures in {folder / 'sheet.png'} and {folder / 'formats.png'}")
    phones = "1 phone" if len(targets) == 1 else f"{len(targets)} phones"
    stdout().print(f"{phones} in {perf_counter() - begun:.0f} s, each picture within its floor")


def export_and_draw(
    original: Original, targets: Sequence[str], folder: Path, progress: Progress
) -> tuple[dict[str, Bundle], list[Trajectory], dict[str, list[PictureReport]]]:
    """Return the bundles by target, the original's pictures of the sheet, and the reports of the bundles' pictures
    by target."""
    context = get_context("spawn")  # torch and the engines have threads, which do not survive a fork
    workers = min(len(targets), os.cpu_count() or 1)
    manager = SyncManager(ctx=context)
    manager.start(follow_parent)
    with manager, ProcessPoolExecutor(workers, context, follow_parent) as pool:
        lines: Lines = manager.Queue()
        Thread(target=relay, args=(lines, progress), daemon=True).start()
        exports = {target: pool.submit(export_for, original, target, folder, workers, lines) for target in targets}
        requests = [Request(prompt, seed=seed, steps=20, guidance=5.0) for seed, prompt in enumerate(SHEET)]
        originals = record(
            original.checkpoint,
            original.parts,
            requests,
            lambda part: progress(f"drawing the sheet with the original: {part}"),
        )
        drawings: dict[str, Future[list[PictureReport]]] = {}
        bundles = {}
        for number, (target, export) in enumerate(exports.items()):
            bundles[target] = export.result()
            compared = originals if number == 0 else originals[:COMPARED]
            drawings[target] = pool.submit(draw_with, bundles[target], compared, target, lines)
        return bundles, originals, {target: drawing.result() for target, drawing in drawings.items()}


def relay(lines: Lines, progress: Progress) -> None:
    """Pass the child processes' lines to `progress` until their queue is closed."""
    try:
        while True:
            progress(": ".join(lines.get()))
    except (EOFError, OSError):
        return


def export_for(original: Original, target: str, folder: Path, workers: int, lines: Lines) -> Bundle:
    """Export `original` for `target` below `folder`. Runs in a child process and uses cores / `workers` threads.
    Progress goes to `lines`."""
    import torch  # imported after pocketdiffusion.export, which sets the reference's precision

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    progress, seconds = timed(lambda line: lines.put((target, line)))
    return export_original(
        original, load_target(target), folder / f"emoji-{target}", progress=progress, seconds=seconds
    )


def draw_with(bundle: Bundle, originals: Sequence[Trajectory], target: str, lines: Lines) -> list[PictureReport]:
    """Draw the prompts of `originals` with the bundle and return the comparison of each picture."""
    (format,) = bundle.manifest.graphs
    reports = []
    for report in draw_pictures(bundle, originals, format):
        lines.put((target, f"drawn with {format}: {report.prompt}"))
        reports.append(report)
    return reports


def picture_table(target: str, reports: Sequence[PictureReport]) -> Table:
    """Return the table of a target's pictures: PSNR, SSIM, the first step that diverges."""
    table = Table("prompt", "PSNR dB", "SSIM", "first diverging step")
    for report in reports:
        diverging = str(report.first_diverging) if report.first_diverging else "-"
        table.add_row(report.prompt, f"{report.psnr_db:.1f}", f"{report.ssim:.4f}", diverging)
    values = [report.psnr_db for report in reports]
    least_median, least = PICTURE_FLOORS_DB["float16"]
    table.title = f"{target}: {reports[0].format} artifacts in fp16 against the original in float32"
    table.caption = (
        f"{len(values)} prompts: median {median(values):.1f} dB (at least {least_median:g}), "
        f"minimum {min(values):.1f} dB (at least {least:g})"
    )
    return table


def check(target: str, reports: Sequence[PictureReport]) -> None:
    """Raise ProofError if the pictures are below the gate's floors for fp16."""
    values = [report.psnr_db for report in reports]
    least_median, least = PICTURE_FLOORS_DB["float16"]
    if not (median(values) >= least_median and min(values) >= least):
        raise ProofError(
            f"{target}: the pictures differ, median {median(values):.1f} dB, minimum {min(values):.1f} dB; the floors "
            f"are {least_median:g} and {least:g} dB"
        )


if __name__ == "__main__":
    run(lambda: demo(Path(sys.argv[1] if len(sys.argv) > 1 else "build"), sys.argv[2:] or PHONES))
