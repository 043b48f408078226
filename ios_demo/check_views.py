"""Type-check the iOS app on Linux: its views, and what of the view models is for Apple's systems alone, against the stand-in
declarations of Tests/ViewStandIns, which are not Apple's frameworks.

    python ios_demo/check_views.py SWIFTC

Prints how many lines were checked so. Raises CalledProcessError where the compiler finds an error or a warning.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent.resolve()
STAND_INS = HERE / "Tests" / "ViewStandIns"
ORDER = ("CoreGraphics", "ImageIO", "Darwin", "Combine", "UIKit", "Photos", "UniformTypeIdentifiers", "SwiftUI", "PhotosUI")
APPLE = ("Darwin", "ImageIO", "CoreGraphics")  # what the view models import where it is there


def main(swiftc: str, out: Path) -> None:
    """Compile the stand-ins, the engine and the view models into modules in `out`, and check the views with them."""
    engine, apple, models = out / "engine", out / "apple", out / "models"
    for folder in (engine, apple, models):
        folder.mkdir(parents=True, exist_ok=True)

    def compile(name: str, sources: list[Path], into: Path, *options: str) -> None:
        run(swiftc, "-emit-module", "-module-name", name, "-emit-module-path", into / f"{name}.swiftmodule", *options, *sources)

    declarations = ("-Xfrontend", "-experimental-skip-non-inlinable-function-bodies")  # the package's build checks the rest
    compile("PocketDiffusion", files(HERE / "Sources" / "PocketDiffusion"), engine, *declarations)
    for name in ORDER:
        compile(name, [STAND_INS / f"{name}.swift"], apple, "-I", str(apple), *declarations)
    imports = ["-Xfrontend", "-import-module", "-Xfrontend", "Darwin"]  # Apple's Foundation brings it along
    includes = ["-I", str(engine), "-I", str(apple)]
    sources = files(HERE / "Sources" / "AppModels")
    compile("AppModels", sources, models, *includes, *imports)
    views = files(HERE / "App")
    run(swiftc, "-typecheck", "-module-name", "App", *includes, "-I", str(models), *views)
    ours = sum(lines(path) for path in views)
    apples = sum(lines_for_apple(path) for path in sources)
    declared = sum(lines(path) for path in files(STAND_INS))
    print(f"type-checked alone, against {declared} lines of stand-ins: {ours} lines of views, {apples} of view models")


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.swift"))


def lines(path: Path) -> int:
    """Count the lines that are neither empty nor a comment."""
    return sum(1 for line in path.read_text().splitlines() if line.strip() and not line.strip().startswith("//"))


def lines_for_apple(path: Path) -> int:
    """Count the lines of those branches of #if that are not compiled on Linux."""
    count, inside = 0, False
    for line in path.read_text().splitlines():
        word = line.strip()
        if word.startswith("#if"):
            inside = any(f"canImport({name})" in word for name in APPLE)
        elif word.startswith(("#else", "#endif")):
            inside = False
        elif inside and word and not word.startswith("//"):
            count += 1
    return count


def run(swiftc: str, *options: str | Path) -> None:
    subprocess.run([swiftc, "-swift-version", "6", "-package-name", "pocket", "-warnings-as-errors", "-parse-as-library", *map(str, options)], check=True)


if __name__ == "__main__":
    main(sys.argv[1], HERE / ".build" / "views")
