"""Runs the Swift engine's tests with bundles of the built-in model and the reader's kit, and shows its device report.

    python ios_demo/run_tests.py [--required] [--quick] --kit KIT BUNDLE [BUNDLE ...]

BUNDLE are bundles of any format, the first with ONNX in float32: its pictures are compared with what Python draws.
One has to be of Core ML, but for --quick, which leaves out what stands in for Apple's frameworks, and most pictures.
Without a Swift toolchain (see tools/swift_setup) it says 'not run: no Swift', and that is an error with --required.
That no test was run always is one.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import draw_requests
import onnxruntime

HERE = Path(__file__).parent.resolve()
UNPACKED = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pocketdiffusion/swift/bin/swift"
STAND_INS = HERE / "Tests/StandIns"
LINTED = ["Sources", "Tests", "Package.swift"]
FLAGS = ["-c", "release", "-Xswiftc", "-enable-testing", "-Xswiftc", "-warnings-as-errors", "--disable-swift-testing"]
FLAGS += ["--enable-code-coverage"]
APPLE = re.compile(r"#(?:if|elseif) .*(?:canImport\((?:CryptoKit|Darwin|ObjectiveC)\)|os\(|targetEnvironment)")
SHOWN = re.compile(r"error:|warning:|^[A-Z]{4,} |Fatal error|unexpected signal")


def find_swift() -> str | None:
    """Find `swift` on PATH, or the one that tools/swift_setup unpacked."""
    return shutil.which("swift") or (str(UNPACKED) if UNPACKED.exists() else None)


def find_onnxruntime() -> Path:
    """Find the C library in Python's own onnxruntime."""
    return next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*"))


class Toolchain:
    """Swift, which sees the folders of `binds` alone where it was unpacked by tools/swift_setup."""

    def __init__(self, swift: str, binds: list[Path], given: dict[str, str]) -> None:
        self.swift = swift
        self.environment = {**os.environ, "SWIFT_BIND": " ".join(map(str, binds)), **given}

    def run(self, *arguments: str, folder: Path = HERE) -> str | None:
        """Run a command and return what it said, or None where it failed; shows errors and figures."""
        command = [self.swift, *arguments]
        done = subprocess.run(
            command, cwd=folder, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        failed = done.returncode != 0
        shown = [line for line in done.stdout.splitlines() if SHOWN.search(line)]
        for line in shown or (done.stdout.splitlines()[-40:] if failed else []):
            print(line, flush=True)
        return None if failed else done.stdout

    def test(self, package: Path, *options: str) -> int | None:
        """Run tests of a package; return how many there were, without those that were skipped, or None."""
        began = time.monotonic()
        said = self.run("test", *FLAGS, *options, folder=package)
        if said is None:
            return None
        executed = re.findall(r"Executed (\d+) tests?,(?: with (\d+) tests? skipped)?", said)
        count = int(executed[-1][0]) - int(executed[-1][1] or 0) if executed else 0
        print(f"{count} tests of ios_demo, {time.monotonic() - began:.0f} s", flush=True)
        return count or None


def count_lines() -> str:
    """Say how many lines of the engine the last tests ran, and how many of it only Apple's systems compile."""
    report = next((STAND_INS / ".build").glob("*/release/codecov/StandIns.json"))
    engine = (HERE / "Sources").resolve()
    ran = told = 0
    for file in json.loads(report.read_text())["data"][0]["files"]:
        if Path(file["filename"]).resolve().is_relative_to(engine):
            ran += file["summary"]["lines"]["covered"]
            told += file["summary"]["lines"]["count"]
    parsed = 0
    for source in (HERE / "Sources").rglob("*.swift"):
        inside = False
        for line in map(str.strip, source.read_text().splitlines()):
            if line.startswith("#"):
                inside = bool(APPLE.match(line))
            elif inside and line and not line.startswith("//"):
                parsed += 1
    return f"{ran} of {told} lines of code in Sources ran; {parsed} more, for Apple's systems alone, were only parsed"


def run(swift: str, kit: Path, bundles: list[Path], quick: bool) -> int:
    """Build the package, run its tests beside the stand-ins for Apple's frameworks; return 0 where all went well."""
    with TemporaryDirectory() as scratch:
        requests, reports = Path(scratch) / "requests", Path(scratch) / "reports"
        reports.mkdir()
        draw_requests.main(requests, bundles[:1], draw_requests.FEW if quick else draw_requests.STEPS)
        library = find_onnxruntime()
        given = {
            "POCKET_BUNDLES": os.pathsep.join(map(str, bundles)),
            "POCKET_KIT": str(kit),
            "POCKET_REQUESTS": str(requests),
            "POCKET_REPORTS": str(reports),
            "POCKET_ORT": str(library),
        }
        tools = Toolchain(swift, [HERE.parent, Path(scratch), kit, *bundles, library.parent], given)
        if tools.run("format", "lint", "--strict", "-r", *LINTED) is None:
            print("swift format has something to say", flush=True)
            return 1
        if not quick and tools.run("build", "-Xswiftc", "-warnings-as-errors") is None:
            print("the package does not build by itself", flush=True)
            return 1
        if tools.test(STAND_INS, *(["--filter", "PocketDiffusionTests"] if quick else [])) is None:
            print("not every test of ios_demo was run and passed", flush=True)
            return 1
        if not quick:
            print(count_lines(), flush=True)
        report = ["verify", str(bundles[0]), "--device-report", str(reports / f"{bundles[0].name}.json")]
        return subprocess.run([sys.executable, "-m", "pocketdiffusion", *report]).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--required", action="store_true", help="fail where there is no Swift")
    parser.add_argument("--quick", action="store_true", help="without stand-ins, and with few pictures")
    parser.add_argument("--kit", type=Path, required=True, help="the reader's kit")
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    given = parser.parse_args()
    if (swift := find_swift()) is None:
        print("not run: no Swift", flush=True)
        return int(given.required)
    return run(swift, given.kit.resolve(), [folder.resolve() for folder in given.bundles], given.quick)


if __name__ == "__main__":
    sys.exit(main())
