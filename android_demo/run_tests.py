"""Run the Kotlin engine's tests with bundles of the built-in model and the reader's kit, and show its device report.

    python android_demo/run_tests.py [--offline] [--required] [--module NAME] --kit KIT BUNDLE [BUNDLE ...]

BUNDLE are bundles of any format and recipe: one with ONNX in float32, one more with a split UNet, and, except for
`--module engine`, one of TFLite.
Pictures of bundles that store floats are compared with Python's. Without a JDK and Maven it prints 'not run', which is
an error with --required. A module that ran no test is always an error.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

import draw_requests

from pocketdiffusion.runtime.bundle.bundle import open_bundle

HERE = Path(__file__).parent
REPORTS = "target/surefire-reports/*.xml"


def stores(folder: Path, *storages: str) -> bool:
    """Return True if the bundle has ONNX graphs and all of them have one of these storages."""
    graphs = open_bundle(folder, check=False).manifest.graphs.get("onnx", {})
    return bool(graphs) and all(graph.storage in storages for graph in graphs.values())


def modules() -> list[str]:
    """Return the names of the modules that have tests."""
    return sorted(folder.parents[1].name for folder in HERE.glob("*/src/test"))


def count_tests(module: str) -> int:
    """Return the number of tests of a module in the reports of Maven's last run, without skipped ones."""
    reports = [ElementTree.parse(path).getroot() for path in (HERE / module).glob(REPORTS)]
    return sum(int(report.get("tests", 0)) - int(report.get("skipped", 0)) for report in reports)


def run(kit: Path, bundles: list[Path], chosen: list[str], offline: bool) -> int:
    """Run the tests; return the exit code of the first program that failed, or 0."""
    for module in modules():
        for stale in (HERE / module).glob(REPORTS):
            stale.unlink()
    floats = [folder for folder in bundles if stores(folder, "float32", "float16")]
    exact = next(folder for folder in bundles if stores(folder, "float32"))
    with TemporaryDirectory() as scratch:
        requests = Path(scratch) / "requests"
        draw_requests.main(requests, floats)
        given = {"bundles": os.pathsep.join(map(str, bundles)), "kit": str(kit), "requests": str(requests)}
        options = ["-B", "-ntp", *(["-o"] if offline else []), *(f"-D{name}={value}" for name, value in given.items())]
        if chosen:
            options += ["-pl", ",".join(chosen)]
        if code := subprocess.run(["mvn", *options, "verify"], cwd=HERE).returncode:
            return code
    for module in chosen or modules():
        if not (count := count_tests(module)):
            print(f"no test of android_demo/{module} was run")
            return 1
        print(f"{count} tests of android_demo/{module}")
    report = ["verify", str(exact), "--device-report", str(HERE / "engine/target/device_report.json")]
    return subprocess.run([sys.executable, "-m", "pocketdiffusion", *report]).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--offline", action="store_true", help="do not let Maven download anything")
    parser.add_argument("--required", action="store_true", help="fail if there is no JDK or Maven")
    parser.add_argument("--module", action="append", default=[], help="test only this module; can be repeated")
    parser.add_argument("--kit", type=Path, required=True, help="the reader's kit")
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    given = parser.parse_args()
    missing = [program for program in ("javac", "mvn") if shutil.which(program) is None]
    if missing:
        print(f"not run: the Android engine's tests need {' and '.join(missing)}", flush=True)
        return int(given.required)
    return run(given.kit.resolve(), [folder.resolve() for folder in given.bundles], given.module, given.offline)


if __name__ == "__main__":
    sys.exit(main())
