"""The report of a comparison: FILE.html for people, FILE.json beside it for machines."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from jinja2 import Environment

from pocketdiffusion.plots import drift_plot, forced_plot, guided_plot
from pocketdiffusion.report import picture_rows, words
from pocketdiffusion.runtime.bundle import Bundle
from pocketdiffusion.runtime.compare import Difference
from pocketdiffusion.runtime.trajectory import Trajectory

PAGE = Path(__file__).with_name("compare.html")  # the template


@dataclass(frozen=True)
class Side:
    """One of the two. `mb` (of 1e6 bytes) is 0 of a checkpoint, whose files are not what is compared."""

    title: str
    precision: str
    mb: float


def side_of(bundle: Bundle, format: str) -> Side:
    """A bundle's artifacts of one format."""
    graphs = bundle.manifest.graphs[format]
    mb = sum(bundle.manifest.files[file].size for graph in graphs.values() for file in graph.files) / 1e6
    unet = graphs["unet"]
    return Side(f"{bundle.folder.name}, {format} {unet.recipe}", f"{format}, {unet.storage}, {unet.arithmetic}", mb)


def write_comparison(
    file: Path,
    sides: tuple[Side, Side],
    recorded: Sequence[Trajectory],
    difference: Difference,
    ratio: float | None,
    broken: str,
) -> None:
    """Writes `file` (self-contained HTML) and, with the suffix .json, the same in numbers. `ratio` is that of the
    processor times of a UNet call, `broken` says which bound does not hold, or nothing."""
    a, b = sides
    page = (
        Environment(autoescape=True)
        .from_string(PAGE.read_text(encoding="utf-8"))
        .render(
            a=a,
            b=b,
            difference=difference,
            ratio=ratio,
            broken=broken,
            rows=picture_rows(difference.pictures, recorded),
            forced=forced_plot(difference.graphs, recorded),
            guided=guided_plot(difference.guided_db, [t.prompt for t in recorded], difference.format),
            drift=drift_plot(difference.pictures),
        )
    )
    pictures = [
        {name: value for name, value in vars(picture).items() if name != "picture"}
        | {"seed": t.seed, "steps": t.steps, "guidance": t.guidance, "guided_db": guided}
        for picture, t, guided in zip(difference.pictures, recorded, difference.guided_db, strict=True)
    ]
    facts = {
        "a": asdict(a),
        "b": asdict(b),
        "unet_time_ratio": ratio,
        "median_db": difference.median_db,
        "lowest_db": difference.lowest_db,
        "broken": broken,
        "pictures": pictures,
        "graphs": [asdict(report) for report in difference.graphs],
    }
    file.with_suffix(".json").write_text(json.dumps(words(facts), indent=1) + "\n")
    file.write_text(page, encoding="utf-8")
