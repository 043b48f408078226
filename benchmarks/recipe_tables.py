"""Write the tables of docs/recipes.md, from the recipes, their floors and the measurements of benchmarks/recipes.py.

python benchmarks/recipe_tables.py
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from pocketdiffusion.quantize.floors import floors_of
from pocketdiffusion.quantize.recipes import recipe_names

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "docs" / "recipes.md"
EQUAL_DB = 999.0  # means infinity, which JSON cannot express

Row = Mapping[str, Any]


def main() -> None:
    rows = json.loads((HERE / "recipes.json").read_text(encoding="utf-8"))
    DOCUMENT.write_text(fill(DOCUMENT.read_text(encoding="utf-8"), rows), encoding="utf-8")


def fill(text: str, rows: Sequence[Row]) -> str:
    """Return the document with each of its tables, which are between comments, replaced."""
    for mark, lines in (("names", names(rows)), ("floors", floors()), ("recipes", table(rows))):
        start, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
        before, rest = text.split(start)
        text = "\n".join((f"{before}{start}", *lines, f"{end}{rest.split(end)[1]}"))
    return text


def names(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the table of recipes: the first paragraph of each file's docstring, and the formats that support it."""
    yield "| recipe | formats | weights and arithmetic |"
    yield "|---|---|---|"
    for name in recipe_names():
        doc = " ".join(
            (import_module(f"pocketdiffusion.quantize.recipes.{name}").__doc__ or "").split("\n\n")[0].split()
        )
        formats = ", ".join(sorted({row["format"] for row in rows if is_of(name, row) and "refused" not in row}))
        yield f"| `{name}` | {formats} | {doc} |"


def is_of(recipe: str, row: Row) -> bool:
    """Return True if a row was measured with this recipe; "mixed4" belongs to "mixed"."""
    return bool(row["recipe"] == recipe or (recipe == "mixed" and row["recipe"].startswith(recipe)))


def floors() -> Iterator[str]:
    """Yield the table of the floors of each lossy recipe, in dB."""
    found = {name: stated for name in recipe_names() if (stated := floors_of(name)) is not None}
    graphs = list(next(iter(found.values())).graphs)
    yield f"| recipe | {' | '.join(graphs)} | pictures, median | pictures, minimum |"
    yield "|" + "---|" * (len(graphs) + 3)
    for name, stated in found.items():
        yield f"| `{name}` | {' | '.join(f'{db:g}' for db in (*stated.graphs.values(), *stated.pictures))} |"


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the table of measurements."""
    yield "| recipe | format | storage, arithmetic, in and out | MB | graphs dB | pictures dB | SSIM | UNet call |"
    yield "|---|---|---|---|---|---|---|---|"
    order = {name: number for number, name in enumerate(recipe_names())}
    for row in sorted(rows, key=lambda r: (order.get(r["recipe"], len(order)), r["format"])):
        yield line(row)


def line(row: Row) -> str:
    start = f"| `{row['recipe']}` | {row['format']} {row['profile']} |"
    if "refused" in row:
        return f"{start} refused: {row['refused']} | | | | | |"
    both = (f"{shown(row['psnr_db'][k])}" for k in ("median", "minimum"))
    likeness = (f"{row['ssim'][k]:.3f}" for k in ("median", "minimum"))
    lowest = " / ".join(shown(row["graph_db"][name]["minimum"]) for name in row["graph_db"])
    ratio = f"{row['time']:.2f}" if "time" in row else "-"
    precisions = ", ".join((row["storage"], row["arithmetic"], *row["io"]))
    return (
        f"{start} {precisions} | {sum(row['mb'].values()):.1f} | {lowest} | "
        f"{' / '.join(both)} | {' / '.join(likeness)} | {ratio} |"
    )


def shown(db: float) -> str:
    return f"{db:.1f}" if db < EQUAL_DB else "equal"


if __name__ == "__main__":
    main()
