"""Run the tests of the Swift engine and the app, type-check the app's views, and show the engine's device report.

    python ios_demo/run_tests.py [--required] [--quick] --kit KIT BUNDLE [BUNDLE ...]

KIT is the reader's kit. BUNDLE are bundles of the built-in model in any format, the first with ONNX in float32: its
pictures, and those of bundles that decode in tiles, are compared with Python's. One more has such graphs and a split
UNet. One has to be of Core ML, except with --quick, which leaves out the stand-ins for Apple's frameworks and most
pictures. Without a Swift toolchain (see tools/swift_setup) it prints 'not run: no Swift', which is an error with
--required. If no test ran, it is always an error.
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
from unittest.mock import patch
from zipfile import ZIP_DEFLATED, ZipFile

import check_views
import draw_requests
import onnxruntime

from pocketdiffusion.runtime.bundle.bundle import open_bundle

HERE = Path(__file__).parent.resolve()
UNPACKED = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pocketdiffusion/swift/bin/swift"
STAND_INS = HERE / "Tests/StandIns"
LINKS = [  # links in the package of stand-ins; they are not in git, because clones on Windows have no links
    *(f"Sources/{name}" for name in ("AppModels", "CObservation", "COrt", "OrtRunner", "PocketDiffusion")),
    *(f"Tests/{name}" for name in ("AppModelsTests", "PocketDiffusionTests")),
]
SHARED = ("ChangedEngine", "Drawn", "Forgery", "Given")  # files of PocketDiffusionTests that StandInTests needs too
LINTED = ["Sources", "App", "Tests", "Package.swift"]
FLAGS = ["-c", "release", "-Xswiftc", "-enable-testing", "-Xswiftc", "-warnings-as-errors", "--disable-swift-testing"]
FLAGS += ["--enable-code-coverage"]
SHOWN = re.compile(r"error:|warning:|^[A-Z]{4,} |Fatal error|unexpected signal")


def link() -> None:
    """Make the missing links of Tests/StandIns."""
    files = {f"Tests/StandInTests/{name}.swift": f"Tests/PocketDiffusionTests/{name}.swift" for name in SHARED}
    for place, source in {**{name: name for name in LINKS}, **files}.items():
        link = STAND_INS / place
        if not link.is_symlink():
            link.symlink_to(os.path.relpath(HERE / source, link.parent))


def find_swift() -> str | None:
    """Return the path of `swift` on PATH, or of the one that tools/swift_setup unpacked, or None."""
    return shutil.which("swift") or (str(UNPACKED) if UNPACKED.exists() else None)


def find_onnxruntime() -> Path:
    """Return the path of the C library in Python's onnxruntime."""
    return next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*"))


def is_tiled(folder: Path) -> bool:
    """Return True if the bundle has ONNX graphs, and its pictures are decoded in tiles."""
    manifest = open_bundle(folder, check=False).manifest
    return "onnx" in manifest.graphs and manifest.vae.tile_size is not None


class Toolchain:
    """Swift. If tools/swift_setup unpacked it, it sees only the folders `binds`."""

    def __init__(self, swift: str, binds: list[Path], given: dict[str, str]) -> None:
        self.swift = swift
        self.environment = {**os.environ, "SWIFT_BIND": " ".join(map(str, binds)), **given}

    def run(self, *arguments: str, folder: Path = HERE) -> str | None:
        """Run a command, print its errors and figures, and return its output, None if it failed."""
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
        """Run the tests of a package; return their number without skipped ones, None if a test failed or none ran."""
        began = time.monotonic()
        said = self.run("test", *FLAGS, *options, folder=package)
        if said is None:
            return None
        executed = re.findall(r"Executed (\d+) tests?,(?: with (\d+) tests? skipped)?", said)
        count = int(executed[-1][0]) - int(executed[-1][1] or 0) if executed else 0
        print(f"{count} tests of ios_demo, {time.monotonic() - began:.0f} s", flush=True)
        return count or None


def make_zips(folder: Path, bundle: Path) -> None:
    """Write the zips that the app's tests unpack: the bundle deflated, the bundle in the form of zips beyond 4 GB,
    the bundle in a folder with files that do not belong to it, and a zip without a bundle."""
    files = [path for path in bundle.rglob("*") if path.is_file()]
    with ZipFile(folder / "flat.zip", "w", ZIP_DEFLATED) as flat, ZipFile(folder / "folder.zip", "w") as stored:
        for path in files:
            flat.write(path, path.relative_to(bundle))
            stored.write(path, path.relative_to(bundle.parent))
        for name in ("__MACOSX/._pndm", "../evil.txt", "/evil.txt"):
            stored.writestr(name, "not of the bundle")
    with patch("zipfile.ZIP64_LIMIT", 1000), ZipFile(folder / "long.zip", "w", ZIP_DEFLATED) as long:
        for path in files:
            long.write(path, path.relative_to(bundle))
    with ZipFile(folder / "other.zip", "w") as other:
        other.writestr("pictures/red.txt", "no bundle")


def count_lines() -> str:
    """Return a sentence with the numbers of lines of code that ran, were only type-checked, or only parsed."""
    report = next((STAND_INS / ".build").glob("*/release/codecov/StandIns.json"))
    sources = (HERE / "Sources").resolve()
    ran = counted = 0
    for file in json.loads(report.read_text())["data"][0]["files"]:
        if Path(file["filename"]).resolve().is_relative_to(sources):
            ran += file["summary"]["lines"]["covered"]
            counted += file["summary"]["lines"]["count"]
    checked, parsed = check_views.count()
    return (
        f"{ran} of {counted} lines of code in Sources ran; {checked} more, of views and view models only for Apple's "
        f"systems, were only type-checked against stand-ins; {parsed} more of the engine were only parsed"
    )


def run(swift: str, kit: Path, bundles: list[Path], quick: bool) -> int:
    """Build the package and run its tests with the stand-ins for Apple's frameworks; return 0 if all passed."""
    with TemporaryDirectory() as scratch:
        requests, reports = Path(scratch) / "requests", Path(scratch) / "reports"
        reports.mkdir()
        drawn = [*bundles[:1], *filter(is_tiled, bundles[1:])]
        draw_requests.main(requests, drawn, draw_requests.FEW if quick else draw_requests.STEPS)
        make_zips(Path(scratch), kit / "pndm")
        link()
        library = find_onnxruntime()
        given = {
            "POCKET_BUNDLES": os.pathsep.join(map(str, bundles)),
            "POCKET_KIT": str(kit),
            "POCKET_REQUESTS": str(requests),
            "POCKET_REPORTS": str(reports),
            "POCKET_ORT": str(library),
            "POCKET_ZIPS": scratch,
        }
        tools = Toolchain(swift, [HERE.parent, Path(scratch), kit, *bundles, library.parent], given)
        if tools.run("format", "lint", "--strict", "-r", *LINTED) is None:
            print("swift format reports faults: correct them", flush=True)
            return 1
        if not quick and tools.run("build", "-Xswiftc", "-warnings-as-errors") is None:
            print("the package does not build by itself", flush=True)
            return 1
        if tools.test(STAND_INS, *(["--filter", "PocketDiffusionTests"] if quick else [])) is None:
            print("not every test of ios_demo was run and passed", flush=True)
            return 1
        if not quick:
            if not check_views.check(swift, HERE / ".build/views"):
                print("the app's views do not compile with its models", flush=True)
                return 1
            print(count_lines(), flush=True)
        report = ["verify", str(bundles[0]), "--device-report", str(reports / f"{bundles[0].name}.json")]
        return subprocess.run([sys.executable, "-m", "pocketdiffusion", *report]).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--required", action="store_true", help="fail if there is no Swift")
    parser.add_argument("--quick", action="store_true", help="leave out stand-ins and most pictures")
    parser.add_argument("--kit", type=Path, required=True, help="the reader's kit")
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    given = parser.parse_args()
    if (swift := find_swift()) is None:
        print("not run: no Swift", flush=True)
        return int(given.required)
    return run(swift, given.kit.resolve(), [folder.resolve() for folder in given.bundles], given.quick)


if __name__ == "__main__":
    sys.exit(main())
