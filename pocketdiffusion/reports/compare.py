"""The report of a comparison: FILE.html for people, FILE.json beside it for machines."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pocketdiffusion.compare import Compared
from pocketdiffusion.reports.answer import answer_comparison
from pocketdiffusion.reports.page import group_pictures, render, words
from pocketdiffusion.reports.plots import drift_plot, guided_plot, layer_plot, teacher_forced_db, teacher_forced_plot
from pocketdiffusion.runtime.errors import UserError


def check_report_files(file: Path) -> None:
    """Raise UserError if `file` or the JSON file next to it exists and is not a comparison. Call this before the
    work."""
    numbers = file.with_suffix(".json")
    if not numbers.exists():
        if file.exists() and file.stat().st_size:
            raise UserError(f"{file} exists and is not a comparison: move it, or give --output another name")
        return
    try:
        facts = json.loads(numbers.read_bytes())
    except (OSError, ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict) or not {"a", "b", "pictures", "graphs"} <= facts.keys():
        raise UserError(f"{numbers} exists and is not a comparison: move it, or give --output another name")


def write_comparison(file: Path, compared: Compared, broken: str) -> None:
    """Write `file` (self-contained HTML) and its numbers to a file with the suffix .json. `broken`: the bound that does
    not hold, "" if none."""
    difference = compared.difference
    drawn = difference.drawn
    calls = [call for each in drawn for call in each.calls]
    steps = teacher_forced_db(difference.graphs, difference.subject, calls)
    page = render(
        "compare.html",
        answer=answer_comparison(compared, broken),
        a=compared.sides[0],
        b=compared.sides[1],
        compared=compared,
        difference=difference,
        steps=drawn[0].steps,
        guidance=drawn[0].guidance,
        prompts=group_pictures(difference.pictures, drawn),
        teacher_forced=teacher_forced_plot(steps),
        guided=guided_plot(difference.guided_db, [each.prompt for each in drawn]),
        drift=drift_plot(difference.pictures),
        layers=layer_plot(compared.layers, compared.budget) if compared.layers else "",
    )
    file.with_suffix(".json").write_text(json.dumps(words(_machine(compared, broken)), indent=1) + "\n")
    file.write_text(page, encoding="utf-8")


def _machine(compared: Compared, broken: str) -> dict[str, Any]:
    difference = compared.difference
    pictures = [
        {name: value for name, value in vars(picture).items() if name not in ("picture", "not_finite")}
        | {"not_finite": picture.not_finite.describe("A", "B") if picture.not_finite else ""}
        | {"seed": t.seed, "steps": t.steps, "guidance": t.guidance, "guided_db": guided}
        for picture, t, guided in zip(difference.pictures, difference.drawn, difference.guided_db, strict=True)
    ]
    return {
        "answer": answer_comparison(compared, broken).sentence,
        "a": asdict(compared.sides[0]),
        "b": asdict(compared.sides[1]),
        "unet_time_ratio": compared.time_ratio,
        "median_db": difference.median_db,
        "lowest_db": difference.lowest_db,
        "against_controls": compared.against_controls,
        "controls": [t.controls for t in difference.drawn],
        "broken": broken,
        "cut": list(compared.truncated),
        "pictures": pictures,
        "graphs": [asdict(report) for report in difference.graphs],
        "ladder": [asdict(rung) for rung in compared.ladder],
        "layer_budget": compared.budget,
        "blame": compared.first_bad_layer,
        "layers": [asdict(error) for error in compared.layers],
    }
