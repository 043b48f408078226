"""Generate the floors of lossy recipes from the measurements of benchmarks/recipes.py.

    python benchmarks/floors.py           prints them, and writes quantize/recipes/floors.json

The rule: a floor is the least PSNR that any format reached on the built-in model with the 24 test prompts, minus a
margin, rounded down to an integer of dB, and no floor is above float16's own. The margin for a graph's outputs is 15
dB, because other models differ; the margin for pictures (median, minimum) is 6 dB.
"""

import json
from collections.abc import Mapping, Sequence
from math import floor
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pocketdiffusion.cli.console import run
from pocketdiffusion.quantize.floors import FILE
from pocketdiffusion.quantize.recipes import recipe_names
from pocketdiffusion.runtime.verify.tolerances import FLOORS_DB, PICTURE_FLOORS_DB

HERE = Path(__file__).parent
MEASUREMENTS = HERE / "recipes.json"
GRAPH_MARGIN_DB = 15
PICTURE_MARGIN_DB = 6
MOST_DB = FLOORS_DB["float16", "float16"]
MOST_PICTURES_DB = PICTURE_FLOORS_DB["float16"]
EXACT = ("fp32", "fp16")  # recipes that have the gate's own floors

Rows = Sequence[Mapping[str, Any]]


def main(output: Annotated[Path, typer.Option("-o", help="JSON file for the floors.")] = FILE) -> None:
    rows = json.loads(MEASUREMENTS.read_text(encoding="utf-8"))
    output.write_text(encode(rows), encoding="utf-8")
    table = Table("recipe", "graphs dB", "pictures dB", title="floors")
    for recipe, floors in generate(rows)["recipes"].items():
        graphs = ", ".join(f"{name} {db:g}" for name, db in floors["graphs"].items())
        table.add_row(recipe, graphs, " / ".join(f"{db:g}" for db in floors["pictures"]))
    Console(width=120).print(table)


# The graphs of the built-in model that floors were measured on, by the stage of the program that calls each.
MEASURED = {
    "encode_prompt": "text_encoder",
    "encode_image": "vae_encoder",
    "denoise": "unet",
    "decode": "vae_decoder",
}


def encode(rows: Rows) -> str:
    """Return the text of floors.json."""
    return json.dumps(generate(rows), indent=1) + "\n"


def generate(rows: Rows) -> dict[str, Any]:
    """Return the content of floors.json, from the rows of recipes.json."""
    rule = (
        f"the least of all formats, {GRAPH_MARGIN_DB} dB (pictures {PICTURE_MARGIN_DB} dB) lower, rounded down to a "
        "whole dB, and not above float16's own: python benchmarks/floors.py"
    )
    measured = {row["recipe"] for row in rows if "refused" not in row}
    lossy = [name for name in recipe_names() if name in measured and name not in EXACT]
    found = {name: floors_from([r for r in rows if r["recipe"] == name and "refused" not in r]) for name in lossy}
    return {"rule": rule, "measured": MEASURED, "recipes": found}


def floors_from(rows: Rows) -> dict[str, Any]:
    """Return the floors of one recipe, from its row of each format that supports it."""
    graphs = {name: min(row["graph_db"][name]["minimum"] for row in rows) for name in rows[0]["graph_db"]}
    pictures = [min(row["psnr_db"][which] for row in rows) for which in ("median", "minimum")]
    least = [db - PICTURE_MARGIN_DB for db in pictures]
    formats = ", ".join(sorted(row["format"] for row in rows))
    evidence = (
        f"{GRAPH_MARGIN_DB} dB, pictures {PICTURE_MARGIN_DB} dB, below what was measured on the built-in model with 24 "
        f"prompts that are not judged, the least of {formats} (benchmarks/recipes.json): "
        + ", ".join(f"{name} {db:.1f}" for name, db in graphs.items())
        + f" dB; pictures' median {pictures[0]:.1f}, minimum {pictures[1]:.1f} dB"
    )
    if any(db > most for db, most in zip(least, MOST_PICTURES_DB, strict=True)):
        evidence += (
            f". No floor is above float16's own: {MOST_DB:g} dB, pictures' median {MOST_PICTURES_DB[0]:g}, minimum "
            f"{MOST_PICTURES_DB[1]:g}"
        )
    return {
        "graphs": {name: float(floor(min(MOST_DB, db - GRAPH_MARGIN_DB))) for name, db in graphs.items()},
        "pictures": [float(floor(min(most, db))) for db, most in zip(least, MOST_PICTURES_DB, strict=True)],
        "evidence": evidence,
    }


if __name__ == "__main__":
    run(lambda: typer.run(main))
