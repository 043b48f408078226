"""Collect the class files of app, engines and libraries in one jar, and let R8 compile it to the dex of an APK, or,
for tests on a JVM, to class files again."""

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

from android_demo.packing.archive import Entry, write_archive
from android_demo.packing.libraries import classes_jar
from pocketdiffusion.runtime.errors import UserError

ANDROID_DEMO = Path(__file__).parents[1]
RULES = Path(__file__).with_name("rules.pro")
MODULES = ("engine", "tflite", "app")  # tflite-classes has only classes that the AARs have too
TELEMETRY = (
    "ai/onnxruntime/TelemetryInitializer",
    "ai/onnxruntime/telemetry/",
)  # classes of onnxruntime's AAR that are left out
LEAST_SDK = "26"


@dataclass(frozen=True)
class FromMaven:
    """Files of Maven's local repository. `program`: jars that go into the app. `desktop`: onnxruntime for this
    computer."""

    program: tuple[Path, ...]
    aars: tuple[Path, ...]
    r8: Path
    android: Path
    desktop: Path


def compile_modules(options: Iterable[str]) -> None:
    """Compile engine and app, and their tests, because the app's tests use the engine's. Raises UserError, with
    Maven's first error, if that fails."""
    _run_maven([*options, "-f", str(ANDROID_DEMO / "pom.xml"), "test-compile"])


def ask_maven(options: Iterable[str], scratch: Path) -> FromMaven:
    """Return the files that packing/pom.xml names, downloaded if necessary. Raises UserError, with Maven's first
    error, if that fails."""
    told, pom = scratch / "classpath.txt", Path(__file__).with_name("pom.xml")
    _run_maven([*options, "-f", str(pom), "dependency:build-classpath", f"-Dmdep.outputFile={told}"])
    files = [Path(path) for path in told.read_text().strip().split(os.pathsep)]
    tools = {name: next(path for path in files if path.name.startswith(f"{name}-")) for name in TOOLS}
    aars = tuple(path for path in files if path.suffix == ".aar")
    program = tuple(path for path in files if path not in (*aars, *tools.values()))
    return FromMaven(program, aars, tools["r8"], tools["android-all"], tools["onnxruntime"])


def _run_maven(arguments: Iterable[str]) -> None:
    done = subprocess.run(["mvn", "-B", "-ntp", "-q", *arguments], capture_output=True, text=True)
    if done.returncode:
        said = [line for line in done.stdout.splitlines() if "[ERROR]" in line] or [done.stderr.strip()]
        raise UserError(f"Maven failed: {said[0]}")


TOOLS = ("r8", "android-all", "onnxruntime")


def write_program(path: Path, jars: Iterable[Path], aars: Iterable[Path], more: Iterable[Path] = ()) -> None:
    """Write the jar of all class files of our modules, of `jars`, of the AARs and of the folders `more`, sorted and
    without onnxruntime's telemetry. Raises UserError if a module is not compiled."""
    found: dict[str, bytes] = {}
    for module in MODULES:
        folder = ANDROID_DEMO / module / "target/classes"
        if not any(folder.rglob("*.class")):
            raise UserError(
                f"{folder} has no class file: run mvn compile in {ANDROID_DEMO.name}, or leave out --compiled"
            )
        found |= dict(_of_folder(folder))
    for folder in more:
        found |= dict(_of_folder(folder))
    for archive in (*map(ZipFile, jars), *map(classes_jar, aars)):
        for name in archive.namelist():
            if _is_program(name):
                found[name] = archive.read(name)
    write_archive(path, (Entry(name, data, stored=False) for name, data in sorted(found.items())))


def shrink(
    tools: FromMaven, program: Path, out: Path, rules: Iterable[Path] = (RULES,), classfile: bool = False
) -> None:
    """Let R8 write the zip `out`, of dex files or of class files, from the jar `program`. Raises UserError if it fails.

    R8 runs with the JVM's first compiler only, which halves its time: the run is too short for the second compiler to
    pay.
    """
    shutil.rmtree(out, ignore_errors=True)
    command = ["java", "-Xmx2g", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", str(tools.r8)]
    command += ["com.android.tools.r8.R8", "--release"]
    command += ["--classfile"] if classfile else ["--min-api", LEAST_SDK]
    for path in rules:
        command += ["--pg-conf", str(path)]
    for library in (tools.android, java_home()):  # android-all has no java.lang.Object
        command += ["--lib", str(library)]
    done = subprocess.run([*command, "--output", str(out), str(program)], capture_output=True, text=True)
    if done.returncode:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise UserError(f"R8 refuses the app: {said[0] if said else done.returncode}")


def java_home() -> Path:
    """Return the folder of the JDK whose java is on the PATH. Raises UserError if there is none."""
    java = shutil.which("java")
    if java is None:
        raise UserError("there is no java here: install a JDK of version 17")
    return Path(java).resolve().parents[1]


def _of_folder(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*.class"):
        if _is_program(name := path.relative_to(folder).as_posix()):
            yield name, path.read_bytes()


def _is_program(name: str) -> bool:
    odd = name.startswith(("META-INF/", *TELEMETRY)) or name == "module-info.class"
    return name.endswith(".class") and not odd
