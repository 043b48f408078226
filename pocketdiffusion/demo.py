"""`make demo`: export the built-in model for a phone, draw the sample sheet with it, compare with the original.

    python -m pocketdiffusion.demo FOLDER [TARGET ...]

`make phones` does it for a Pixel, a Galaxy and an iPhone, which take three formats.

Exits 1 where a verdict fails, or the pictures are further from the original's than the floors allow.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from rich.table import Table

from pocketdiffusion.build import export
from pocketdiffusion.export.checkpoint import open_checkpoint
from pocketdiffusion.export.families import components
from pocketdiffusion.export.reference import Request, record
from pocketdiffusion.models.emoji.prompts import SHEET
from pocketdiffusion.runtime.bundle import Bundle
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.gate import PICTURE_FLOORS_DB, PictureReport, draw_pictures
from pocketdiffusion.runtime.image import contact_sheet, write_png
from pocketdiffusion.runtime.trajectory import Trajectory
from pocketdiffusion.tables import verdict_table
from pocketdiffusion.terminal import console, progress, run

SHOWN = 4  # prompts that formats.png has of each


def demo(folder: Path, targets: Sequence[str]) -> None:
    bundles = {target: export_for(target, folder) for target in targets}
    originals = draw_originals()
    drawn = {target: draw_with(bundle, originals) for target, bundle in bundles.items()}
    sheet = contact_sheet([report.picture for report in drawn[targets[0]]], columns=6)
    write_png(folder / "sheet.png", sheet, {"prompts": list(SHEET)})
    rows = [[original.picture for original in originals], *([r.picture for r in reports] for reports in drawn.values())]
    formats = contact_sheet([picture for row in rows for picture in row[:SHOWN]], columns=SHOWN)
    write_png(
        folder / "formats.png", formats, {"rows": ["original", *(reports[0].format for reports in drawn.values())]}
    )
    for target, reports in drawn.items():
        console.print(picture_table(target, reports))
    for target, reports in drawn.items():
        check(target, reports)
    console.print(f"pictures in {folder / 'sheet.png'} and {folder / 'formats.png'}")


def export_for(target: str, folder: Path) -> Bundle:
    with progress(f"exporting emoji for {target}") as say:
        bundle = export("emoji", target, folder / f"emoji-{target}", say=say)
    console.print(verdict_table(bundle.manifest.verdicts))
    return bundle


def draw_originals() -> list[Trajectory]:
    """The sheet, drawn by the original in float32."""
    checkpoint = open_checkpoint("emoji")
    requests = [Request(prompt, seed=seed, steps=20, guidance=5.0) for seed, prompt in enumerate(SHEET)]
    with progress("drawing the sheet with the original, float32") as say:
        return record(checkpoint, components(checkpoint), requests, say)


def draw_with(bundle: Bundle, originals: Sequence[Trajectory]) -> list[PictureReport]:
    (format,) = bundle.manifest.graphs
    reports = []
    with progress(f"drawing with {format} for {bundle.manifest.target.title}") as say:
        for report in draw_pictures(bundle, originals, format):
            say(report.prompt)
            reports.append(report)
    return reports


def picture_table(target: str, reports: Sequence[PictureReport]) -> Table:
    table = Table("prompt", "PSNR dB", "SSIM", "first diverging step")
    for report in reports:
        diverging = str(report.first_diverging) if report.first_diverging else "-"
        table.add_row(report.prompt, f"{report.psnr_db:.1f}", f"{report.ssim:.4f}", diverging)
    values = [report.psnr_db for report in reports]
    table.title = f"{target}: {reports[0].format} artifacts against the original in float32"
    table.caption = f"median {median(values):.1f} dB, minimum {min(values):.1f} dB"
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
    run(lambda: demo(Path(sys.argv[1] if len(sys.argv) > 1 else "build"), sys.argv[2:] or ["pixel-8"]))
