"""Run bundles of TFLite with the Android app's engine: TensorFlow Lite 2.16.1, which tensorflow-cpu has for computers.

    python benchmarks/tflite_on_android.py PYTHON BUNDLE [BUNDLE ...] [-o FILE.json]

PYTHON is the interpreter of an environment with tests/tensorflow.txt (make build/tensorflow). Each graph is judged by
the gate with the bundle's own recordings, and a small picture is drawn and judged. A bundle whose manifest names a
newer engine has to be refused. Exits with 1 if a verdict fails, or if the manifest and the engine disagree on which
graphs can be opened.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from pocketdiffusion.cli.console import run, stdout
from pocketdiffusion.runtime.bundle.bundle import Bundle, open_bundle
from pocketdiffusion.runtime.devices.child import ChildRunner
from pocketdiffusion.runtime.devices.facts import StandinFacts
from pocketdiffusion.runtime.devices.judge import Standin, judge_on
from pocketdiffusion.runtime.devices.tensorflow_lite import launch_tensorflow
from pocketdiffusion.runtime.engines import tflite
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.verify.golden import read_golden

REQUIREMENTS = Path(__file__).parents[1] / "tests/tensorflow.txt"
SECONDS = 300  # time limit of one call


def version() -> str:
    """Return the version of TensorFlow Lite."""
    pins = dict(line.split("==") for line in REQUIREMENTS.read_text().split())
    return pins["tensorflow_cpu"]


def judge(place: Standin, bundle: Bundle, has: str) -> list[dict[str, Any]]:
    """Return the figures of a bundle. Raises ProofError if a file is opened that names a newer engine."""
    graphs = bundle.manifest.graphs["tflite"]
    least = {name: graph.engine.least_version or "" for name, graph in graphs.items() if graph.engine is not None}
    newer = [name for name, needs in least.items() if _numbers(needs) > _numbers(has)]
    rows = [{"graph": name, "refused": f"asks for {least[name]}"} for name in newer]
    for name in newer:
        try:
            ChildRunner(
                place.launch,
                tflite.ENGINE.standin_runs["tensorflow"][0].engine,
                bundle.folder / graphs[name].path,
                graphs[name].spec,
            )
        except ProofError:
            continue
        raise ProofError(f"{bundle.folder}: {name} needs {least[name]}, but version {has} opens it")
    if newer:
        return rows
    reports, _ = judge_on(place, bundle, read_golden(bundle))
    if failed := [report for report in reports if not report.passed]:
        raise ProofError(f"{bundle.folder}: {failed[0].describe()}")
    return [{"graph": each.subject, "psnr_db": round(each.psnr_db, 1), "floor_db": each.floor_db} for each in reports]


def main(
    python: Annotated[Path, typer.Argument(help="Python of an environment with tests/tensorflow.txt.")],
    bundles: Annotated[list[Path], typer.Argument(metavar="BUNDLE")],
    output: Annotated[Path, typer.Option("-o", help="JSON file for the figures.")] = Path(
        "build/tflite_on_android.json"
    ),
) -> None:
    launch = launch_tensorflow(python.absolute(), SECONDS)
    facts = StandinFacts("the Android app's engine", lambda cache, core, seconds: launch)
    has, place = version(), Standin("tensorflow", launch, facts)
    found = {folder.name: judge(place, open_bundle(folder), has) for folder in bundles}
    table = Table("bundle", "graph", "dB", "floor", title=f"TensorFlow Lite {has}")
    for name, rows in found.items():
        for row in rows:
            told = [row["refused"], ""] if "refused" in row else [str(row["psnr_db"]), f"{row['floor_db']:g}"]
            table.add_row(name, row["graph"], *told)
    stdout().print(table)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({"version": has, "bundles": found}, indent=1) + "\n")


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


if __name__ == "__main__":
    run(lambda: typer.run(main))
