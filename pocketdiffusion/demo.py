"""`make demo`: export the built-in model for a phone, draw a sheet with the artifacts, compare it with the original's.

    python -m pocketdiffusion.demo FOLDER [TARGET]

Exits 1 where a verdict fails, or the pictures are further from the original's than the floors allow.
"""

import sys
from pathlib import Path
from statistics import median

import numpy as np
from rich.table import Table

from pocketdiffusion.build import export
from pocketdiffusion.export.checkpoint import open_checkpoint
from pocketdiffusion.export.families import components
from pocketdiffusion.export.reference import Request, record
from pocketdiffusion.models.emoji.prompts import SHEET
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.gate import PICTURE_FLOORS_DB, PictureReport, draw_pictures
from pocketdiffusion.runtime.image import contact_sheet, write_png
from pocketdiffusion.tables import verdict_table
from pocketdiffusion.terminal import console, progress, run


def demo(folder: Path, target: str) -> None:
    with progress(f"exporting emoji for {target}") as say:
        bundle = export("emoji", target, folder / f"emoji-{target}", say=say)
    console.print(verdict_table(bundle.manifest.verdicts))
    checkpoint = open_checkpoint("emoji")
    requests = [Request(prompt, seed=seed, steps=20, guidance=5.0) for seed, prompt in enumerate(SHEET)]
    with progress("drawing the sheet with the original, float32") as say:
        originals = record(checkpoint, components(checkpoint), requests, say)
    reports: list[PictureReport] = []
    with progress("drawing the sheet with the exported artifacts") as say:
        for report in draw_pictures(bundle, originals, next(iter(bundle.manifest.graphs))):
            say(report.prompt)
            reports.append(report)
    pairs = np.concatenate(
        [
            contact_sheet([report.picture for report in reports], columns=len(reports) // 2),
            contact_sheet([original.picture for original in originals], columns=len(reports) // 2),
        ]
    )
    write_png(folder / "sheet.png", contact_sheet([r.picture for r in reports], columns=6), {"prompts": list(SHEET)})
    write_png(folder / "sheet-against-original.png", pairs, {"rows": "artifacts above, original below"})
    console.print(picture_table(reports))
    values = [report.psnr_db for report in reports]
    console.print(f"median {median(values):.1f} dB, minimum {min(values):.1f} dB; pictures in {folder / 'sheet.png'}")
    least_median, least = PICTURE_FLOORS_DB["float16"]
    if not (median(values) >= least_median and min(values) >= least):
        raise ProofError(
            f"the artifacts' pictures differ: the floors are {least_median} dB (median) and {least} dB (minimum)"
        )


def picture_table(reports: list[PictureReport]) -> Table:
    table = Table(
        "prompt", "PSNR dB", "SSIM", "first diverging step", title="exported artifacts against the original, float32"
    )
    for report in reports:
        diverging = str(report.first_diverging) if report.first_diverging else "-"
        table.add_row(report.prompt, f"{report.psnr_db:.1f}", f"{report.ssim:.4f}", diverging)
    return table


if __name__ == "__main__":
    arguments = sys.argv[1:]
    run(lambda: demo(Path(arguments[0] if arguments else "build"), arguments[1] if len(arguments) > 1 else "pixel-8"))
