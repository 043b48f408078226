"""Type-check the iOS app on Linux: its views, and the parts of the view models that only Apple's systems compile,
against the stand-in declarations of Tests/ViewStandIns, which are not Apple's frameworks.

    python ios_demo/check_views.py SWIFT

Uses the engine as built by the tests in Tests/StandIns. Exits with an error if the compiler reports an error or a
warning.
"""

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent.resolve()
PROJECT = HERE / "PocketDiffusion.xcodeproj/project.pbxproj"
ENGINE = HERE / "Tests/StandIns/.build/release/Modules"
VIEWS = HERE / "App"
VIEW_MODELS = HERE / "Sources/AppModels"
STAND_INS = HERE / "Tests/ViewStandIns"
ORDER = (
    "CoreGraphics",
    "ImageIO",
    "Darwin",
    "Combine",
    "UIKit",
    "Photos",
    "UniformTypeIdentifiers",
    "SwiftUI",
    "PhotosUI",
)
FLAGS = ("-swift-version", "6", "-package-name", "standins", "-warnings-as-errors", "-parse-as-library")
WITHOUT_BODIES = ("-Xfrontend", "-experimental-skip-non-inlinable-function-bodies")
WITH_DARWIN = ("-Xfrontend", "-import-module", "-Xfrontend", "Darwin")  # Apple's Foundation exports it
APPLE = r"canImport\((Darwin|CoreGraphics|ImageIO|CryptoKit|ObjectiveC)\)|os\((iOS|macOS)\)|targetEnvironment"
CONDITION = re.compile(rf"#(else)?if .*({APPLE})")


def check(swift: str, out: Path) -> bool:
    """Type-check the app with the compiler in the folder of `swift`; write modules into `out`. Return True if there
    is no error."""
    swiftc = f"{swift}c"
    apple, models = out / "apple", out / "models"
    for folder in (apple, models):
        folder.mkdir(parents=True, exist_ok=True)

    def compile(name: str, sources: list[Path], into: Path, *options: str | Path) -> bool:
        module = into / f"{name}.swiftmodule"
        return run(swiftc, "-emit-module", "-module-name", name, "-emit-module-path", module, *options, *sources)

    includes = ("-I", apple, "-I", ENGINE)
    view_models, views = files(VIEW_MODELS), files(VIEWS)
    return (
        all(compile(name, [STAND_INS / f"{name}.swift"], apple, "-I", apple, *WITHOUT_BODIES) for name in ORDER)
        and compile("AppModels", view_models, models, *WITH_DARWIN, *includes)
        and run(swiftc, "-typecheck", "-module-name", module_name(), "-I", models, *includes, *views)
    )


def module_name() -> str:
    """Return the app's module name from the Xcode project: PRODUCT_NAME is $(TARGET_NAME), and the module is named
    so."""
    found = re.search(r"isa = PBXNativeTarget;.*?\bname = (\w+);", PROJECT.read_text(), re.DOTALL)
    assert found is not None
    return found.group(1)


def count() -> tuple[int, int]:
    """Return two numbers of lines of code: those that are only type-checked by `check`, and those of the engine that
    are only parsed."""
    checked = sum(map(lines, files(VIEWS))) + sum(map(lines_for_apple, files(VIEW_MODELS)))
    return checked, sum(map(lines_for_apple, files(HERE / "Sources/PocketDiffusion")))


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.swift"))


def is_code(line: str) -> bool:
    return bool(line.strip()) and not line.strip().startswith("//")


def lines(path: Path) -> int:
    """Return the number of lines that are neither empty nor a comment."""
    return sum(map(is_code, path.read_text().splitlines()))


def lines_for_apple(path: Path) -> int:
    """Return the number of lines in branches of #if that are not compiled on Linux."""
    count, branches = 0, list[bool]()  # for each open #if: True if this branch is for Apple's systems
    for line in path.read_text().splitlines():
        word = line.strip()
        if word.startswith("#if"):
            branches.append(CONDITION.match(word) is not None)
        elif word.startswith("#else"):
            branches[-1] = CONDITION.match(word) is not None
        elif word.startswith("#endif"):
            branches.pop()
        elif any(branches):
            count += is_code(line)
    return count


def run(*command: str | Path) -> bool:
    return subprocess.run([*map(str, (command[0], *FLAGS, *command[1:]))], cwd=HERE).returncode == 0


if __name__ == "__main__":
    sys.exit(not check(sys.argv[1], HERE / ".build/views"))
