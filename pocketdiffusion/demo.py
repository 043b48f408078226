"""`make demo`: export the built-in model for three phones, draw with the artifacts, compare with the original.

    python -m pocketdiffusion.demo FOLDER [TARGET ...]

The model is recorded once; the phones are then exported in processes of their own, as many at once as there are cores,
while the original draws the sheet in this one. Exits 1 where a verdict fails, or the pictures of a phone are further
from the original's than the floors for fp16 allow.
"""

import os
import sys
from collections.abc import Callable, Sequence
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
from pocketdiffusion.cli.console import progress, run, stdout
from pocketdiffusion.cli.tables import verdict_table
from pocketdiffusion.export.parent import follow_parent
from pocketdiffusion.export.reference.record import Request, record
from pocketdiffusion.export.targets import load_target
from pocketdiffusion.models.emoji.prompts import SHEET
from pocketdiffusion.reports.stage_times import timed
from pocketdiffusion.runtime.bundle.bundle import Bundle
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.image import contact_sheet, write_png
from pocketdiffusion.runtime.verify.pictures import PictureReport, draw_pictures
from pocketdiffusion.runtime.verify.recording import Trajectory
from pocketdiffusion.runtime.verify.tolerances import PICTURE_FLOORS_DB
from pocketdiffusion.source import Original, open_model, record_original

PHONES = ("pixel-8", "galaxy-s24", "iphone-15")
COMPARED = 12  # prompts that every phone draws; the first draws the whole sheet
SHOWN = 4  # prompts that formats.png has of each
Lines = Queue[tuple[str, str]]  # who says it, and what


def demo(folder: Path, targets: Sequence[str]) -> None:
    begun = perf_counter()
    with progress("emoji", log=True) as say:
        original = record_original(*open_model("emoji"), say=say)
        try:
            bundles, originals, drawn = export_and_draw(original, targets, folder, say)
        except BrokenProcessPool:
            raise UserError("an exporting process was ended, probably for want of memory: run again") from None
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
    original: Original, targets: Sequence[str], folder: Path, say: Callable[[str], None]
) -> tuple[dict[str, Bundle], list[Trajectory], dict[str, list[PictureReport]]]:
    """The bundles by target, the sheet by the original, and the same prompts by each bundle."""
    context = get_context("spawn")  # torch and the engines have threads, which do not survive a fork
    workers = min(len(targets), os.cpu_count() or 1)
    manager = SyncManager(ctx=context)
    manager.start(follow_parent)
    with manager, ProcessPoolExecutor(workers, context, follow_parent) as pool:
        lines: Lines = manager.Queue()
        Thread(target=relay, args=(lines, say), daemon=True).start()
        exports = {target: pool.submit(export_for, original, target, folder, workers, lines) for target in targets}
        requests = [Request(prompt, seed=seed, steps=20, guidance=5.0) for seed, prompt in enumerate(SHEET)]
        originals = record(
            original.checkpoint,
            original.parts,
            requests,
            lambda part: say(f"drawing the sheet with the original: {part}"),
        )
        drawings: dict[str, Future[list[PictureReport]]] = {}
        bundles = {}
        for number, (target, export) in enumerate(exports.items()):
            bundles[target] = export.result()
            wanted = originals if number == 0 else originals[:COMPARED]
            drawings[target] = pool.submit(draw_with, bundles[target], wanted, target, lines)
        return bundles, originals, {target: drawing.result() for target, drawing in drawings.items()}


def relay(lines: Lines, say: Callable[[str], None]) -> None:
    """Shows what the processes say, for as long as their queue is there."""
    try:
        while True:
            say(": ".join(lines.get()))
    except (EOFError, OSError):
        return


def export_for(original: Original, target: str, folder: Path, workers: int, lines: Lines) -> Bundle:
    """In a process of its own, one of `workers` that share the cores."""
    import torch  # after the reference's precision is pinned, which comes with pocketdiffusion.export

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    say, seconds = timed(lambda line: lines.put((target, line)))
    return export_original(original, load_target(target), folder / f"emoji-{target}", say=say, seconds=seconds)


def draw_with(bundle: Bundle, originals: Sequence[Trajectory], target: str, lines: Lines) -> list[PictureReport]:
    """The prompts of `originals`, drawn by the bundle and compared with them."""
    (format,) = bundle.manifest.graphs
    reports = []
    for report in draw_pictures(bundle, originals, format):
        lines.put((target, f"drawn with {format}: {report.prompt}"))
        reports.append(report)
    return reports


def picture_table(target: str, reports: Sequence[PictureReport]) -> Table:
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
    """Raises ProofError where the pictures are further away than the gate's floors for fp16."""
    values = [report.psnr_db for report in reports]
    least_median, least = PICTURE_FLOORS_DB["float16"]
    if not (median(values) >= least_median and min(values) >= least):
        raise ProofError(
            f"{target}: the pictures differ, median {median(values):.1f} dB, minimum {min(values):.1f} dB; the floors "
            f"are {least_median:g} and {least:g} dB"
        )


if __name__ == "__main__":
    run(lambda: demo(Path(sys.argv[1] if len(sys.argv) > 1 else "build"), sys.argv[2:] or PHONES))
