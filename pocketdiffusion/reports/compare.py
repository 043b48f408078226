"""The report of a comparison: FILE.html for people, FILE.json beside it for machines."""

import json
from dataclasses import asdict
from pathlib import Path

from jinja2 import Environment

from pocketdiffusion.compare import Compared
from pocketdiffusion.reports.export import picture_rows, words
from pocketdiffusion.reports.plots import drift_plot, forced_plot, guided_plot, layer_plot
from pocketdiffusion.runtime.errors import UserError

PAGE = Path(__file__).with_name("templates") / "compare.html"  # the template


def check_place(file: Path) -> None:
    """Raise UserError, before the work, where `file` or the numbers beside it would replace what is no comparison."""
    numbers = file.with_suffix(".json")
    if not numbers.exists():
        if file.exists() and file.stat().st_size:
            raise UserError(f"{file} is there already, and is no comparison: move it, or give --output another name")
        return
    try:
        facts = json.loads(numbers.read_bytes())
    except (OSError, ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict) or not {"a", "b", "pictures", "graphs"} <= facts.keys():
        raise UserError(f"cannot write {numbers}: what is there is no comparison; give --output another name")


def write_comparison(file: Path, compared: Compared, broken: str) -> None:
    """Writes `file` (self-contained HTML) and, with the suffix .json, the same in numbers. `broken` says which bound
    does not hold, or nothing."""
    difference, recorded = compared.difference, compared.recorded
    page = (
        Environment(autoescape=True)
        .from_string(PAGE.read_text(encoding="utf-8"))
        .render(
            a=compared.sides[0],
            b=compared.sides[1],
            compared=compared,
            difference=difference,
            broken=broken,
            rows=picture_rows(difference.pictures, recorded),
            forced=forced_plot(difference.graphs, recorded),
            guided=guided_plot(difference.guided_db, [t.prompt for t in recorded], difference.format),
            drift=drift_plot(difference.pictures),
            layers=layer_plot(compared.layers, compared.budget) if compared.layers else "",
        )
    )
    pictures = [
        {name: value for name, value in vars(picture).items() if name not in ("picture", "not_finite")}
        | {"not_finite": picture.not_finite.describe("A", "B") if picture.not_finite else ""}
        | {"seed": t.seed, "steps": t.steps, "guidance": t.guidance, "guided_db": guided}
        for picture, t, guided in zip(difference.pictures, recorded, difference.guided_db, strict=True)
    ]
    facts = {
        "a": asdict(compared.sides[0]),
        "b": asdict(compared.sides[1]),
        "unet_time_ratio": compared.ratio,
        "median_db": difference.median_db,
        "lowest_db": difference.lowest_db,
        "beside": compared.beside,
        "controls": [t.controls for t in recorded],
        "broken": broken,
        "cut": list(compared.cut),
        "pictures": pictures,
        "graphs": [asdict(report) for report in difference.graphs],
        "ladder": [asdict(rung) for rung in compared.ladder],
        "layer_budget": compared.budget,
        "blame": compared.blame,
        "layers": [asdict(error) for error in compared.layers],
    }
    file.with_suffix(".json").write_text(json.dumps(words(facts), indent=1) + "\n")
    file.write_text(page, encoding="utf-8")
