"""Print the stages of whole exports, as full_export.py measured them, as one table of benchmarks/RESULTS.md.

    python benchmarks/full_export_tables.py FILE.json [FILE.json ...]

Stages of a component, such as the parts of a split UNet, are one row: the largest memory and the sum of the CPU seconds
of each. A file may also have a list of exports.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROWS = {  # title and the names of its stages, in the order of an export
    "opening, finite weights": "starting|loading|.*: reading .* of weights",
    "recording the original": "recording|reading the recording",
    "planning": "planning",
    "calibrating": "calibrating",
    **{
        f"{title}: {row}": pattern.format(name=name)
        for title, name in {"text encoder": "text_encoder", "UNet": r"unet(_\d+)?", "VAE": "vae_(en|de)coder"}.items()
        for row, pattern in {
            "writing, and the replay in float16": r"writing \w+ {name},",
            "rungs below the artifact": r"verifying ({name} |\w+ {name}(,| against))|reading kept .* {name}$",
        }.items()
    },
    "tokenizer, tables, vectors, stages, report": "writing tokenizer|writing the report|verifying stages",
    "gate: each graph": r"verifying \w+ (text_encoder|unet(_\d+)?|vae_(en|de)coder)$",
    "gate: pictures": r"verifying \w+ pictures",
    "whole": "whole$",
}


def read(paths: list[Path]) -> Iterator[dict[str, Any]]:
    """Yield the exports of the files."""
    for path in paths:
        found = json.loads(path.read_text(encoding="utf-8"))
        yield from found if isinstance(found, list) else [found]


def stages_of(title: str, export: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the stages of an export that belong to a row."""
    return [stage for stage in export["stages"] if re.match(ROWS[title], stage["name"])]


def main(paths: list[Path]) -> None:
    exports = list(read(paths))
    for export in exports:
        for stage in export["stages"]:
            rows = [title for title in ROWS if re.match(ROWS[title], stage["name"])]
            if len(rows) != 1:
                raise SystemExit(f"the stage {stage['name']!r} belongs to {len(rows)} rows: correct ROWS")
    print("| stage | " + " | ".join(f"{each['target']}: MB | CPU s" for each in exports) + " |")
    print("|---|" + "---|---|" * len(exports))
    for title in ROWS:
        cells = []
        for export in exports:
            found = stages_of(title, export)
            megabytes = max((stage["anonymous_mb"] for stage in found), default=0)
            cells += [f"{megabytes:.0f}", f"{sum(stage['cpu_seconds'] for stage in found):.0f}"]
        if title not in ("planning", "calibrating") or any(cell != "0" for cell in cells[1::2]):
            print(f"| {title} | {' | '.join(cells)} |")
    print("| seconds | " + " | ".join(f"| {each['stages'][-1]['seconds']:.0f}" for each in exports) + " |")


if __name__ == "__main__":
    main([Path(each) for each in sys.argv[1:]])
