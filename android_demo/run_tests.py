"""Runs the Kotlin engine's tests with bundles of the built-in model and the reader's kit, and shows its device report.

    python android_demo/run_tests.py [--offline] [--required] [--module NAME] --kit KIT BUNDLE [BUNDLE ...]

BUNDLE are bundles of any format and recipe, one with ONNX in float32 and, but for `--module engine`, one of TFLite.
Pictures of those that store floats are compared with what Python draws. Without a JDK and Maven it says 'not run', and
that is an error with --required. That a module ran no test always is one.
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
    """Whether the bundle holds ONNX, and its weights in no other way than one of these."""
    graphs = open_bundle(folder, check=False).manifest.graphs.get("onnx", {})
    return bool(graphs) and all(graph.storage in storages for graph in graphs.values())


def modules() -> list[str]:
    """The modules that have tests."""
    return sorted(folder.parents[1].name for folder in HERE.glob("*/src/test"))


def count_tests(module: str) -> int:
    """How many tests of a module the last run of Maven has reports of, without those that were skipped."""
    reports = [ElementTree.parse(path).getroot() for path in (HERE / module).glob(REPORTS)]
    return sum(int(report.get("tests", 0)) - int(report.get("skipped", 0)) for report in reports)


def run(kit: Path, bundles: list[Path], chosen: list[str], offline: bool) -> int:
    """Return the exit code of the first program that failed, or 0."""
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
    parser.add_argument("--offline", action="store_true", help="Maven fetches nothing")
    parser.add_argument("--required", action="store_true", help="fail where there is no JDK or Maven")
    parser.add_argument("--module", action="append", default=[], help="a module to test, instead of all")
    parser.add_argument("--kit", type=Path, required=True, help="the reader's kit")
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    given = parser.parse_args()
    lacking = [program for program in ("javac", "mvn") if shutil.which(program) is None]
    if lacking:
        print(f"not run: the Android engine's tests, for want of {' and '.join(lacking)}", flush=True)
        return int(given.required)
    return run(given.kit.resolve(), [folder.resolve() for folder in given.bundles], given.module, given.offline)


if __name__ == "__main__":
    sys.exit(main())
