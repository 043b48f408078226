"""Test the APK that `make apk` wrote, and the rules by which R8 shrank its classes. `make test-apk` runs this; it
needs the programs of packing, and the bundles that `make demo` writes."""

import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

import pytest

from android_demo.draw_requests import main as draw_requests
from android_demo.pack import HOME
from android_demo.packing.checks import check_apk, check_libraries
from android_demo.packing.classes import RULES, ask_maven, shrink, write_program
from android_demo.packing.libraries import find_aar, read_pinned
from pocketdiffusion.runtime.bundle.bundle import open_bundle
from pocketdiffusion.runtime.errors import ProofError

ROOT = Path(__file__).parents[1]
APK = ROOT / "build/pocket-diffusion.apk"
BUNDLES = [ROOT / "build/emoji-galaxy-s24", ROOT / "build/emoji-pixel-8"]
TEST_CLASSES = ROOT / "android_demo/engine/target/test-classes"
REDRAW = "pocketdiffusion/engine/Redraw*.class"
MAIN = "pocketdiffusion.engine.RedrawKt"
SEGMENTS = {name: size for library in read_pinned() for name, size in library.libraries.items()}


def test_the_apk_is_what_it_has_to_be() -> None:
    described = check_apk(APK, SEGMENTS)
    assert "package: name='pocketdiffusion.app' versionCode='1'" in described.badging
    assert "pocketdiffusion.app.MainActivity" in described.components


def test_the_bundles_in_the_apk_are_complete(tmp_path: Path) -> None:
    with ZipFile(APK) as archive:
        assets = [name for name in archive.namelist() if name.startswith("assets/bundles/")]
        licences = [name for name in archive.namelist() if name.startswith("assets/licences/")]
        assert assets == [f"assets/bundles/{folder.name}.{kind}" for folder in BUNDLES for kind in ("id", "zip")]
        assert len(licences) == 4 and b"Microsoft Corporation" in archive.read("assets/licences/onnxruntime.txt")
        for folder in BUNDLES:
            name = f"assets/bundles/{folder.name}"
            with ZipFile(BytesIO(archive.read(f"{name}.zip"))) as packed:
                packed.extractall(tmp_path / folder.name)
            unpacked = open_bundle(tmp_path / folder.name).manifest
            assert archive.read(f"{name}.id").decode() == unpacked.bundle_id
            assert unpacked.runtime_id == open_bundle(folder, check=False).manifest.runtime_id


def test_packing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "android_demo.pack", "--compiled", "-o", str(tmp_path / "again.apk")]
    done = subprocess.run([*command, *map(str, BUNDLES)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again.apk").read_bytes() == APK.read_bytes()


def test_a_changed_apk_is_refused(tmp_path: Path) -> None:
    changed = tmp_path / "changed.apk"
    raw = bytearray(APK.read_bytes())
    raw[len(raw) // 2] ^= 1
    changed.write_bytes(raw)
    with pytest.raises(ProofError, match="apksigner refuses"):
        check_apk(changed, SEGMENTS)
    with pytest.raises(
        ProofError, match="libtensorflowlite_gpu_jni.so has load segments aligned to 4096, not to 16384"
    ):
        check_libraries(APK, dict.fromkeys(SEGMENTS, 16384))


def classes_of_main() -> list[Path]:
    """Return the class files of the engine's Redraw.kt; compile the tests if Maven has not done so yet."""
    if not list(TEST_CLASSES.glob(REDRAW)):
        command = ["mvn", "-B", "-ntp", "-q", "-pl", "engine", "test-compile"]
        subprocess.run(command, cwd=ROOT / "android_demo", check=True)
    return list(TEST_CLASSES.glob(REDRAW))


def test_shrunk_classes_draw_what_python_draws(tmp_path: Path) -> None:
    """Run the classes of the APK, shrunk by its rules, as class files in this computer's JVM; one main is kept in
    addition."""
    draw_requests(tmp_path / "requests", [ROOT / "build/emoji-pixel-8"])
    with TemporaryDirectory() as scratch:
        jars = ask_maven((), Path(scratch))
    main = tmp_path / "main"
    for path in classes_of_main():
        (copied := main / path.relative_to(TEST_CLASSES)).parent.mkdir(parents=True, exist_ok=True)
        copied.write_bytes(path.read_bytes())
    (tmp_path / "main.pro").write_text(f"-keep class {MAIN} {{ public static void main(java.lang.String[]); }}\n")
    aars = [find_aar(library, jars.aars, HOME.expanduser() / "aars", print) for library in read_pinned()]
    write_program(tmp_path / "program.jar", jars.program, aars, [main])
    shrink(jars, tmp_path / "program.jar", tmp_path / "shrunk.jar", (RULES, tmp_path / "main.pro"), classfile=True)
    with ZipFile(tmp_path / "program.jar") as complete, ZipFile(tmp_path / "shrunk.jar") as shrunk:
        assert len(shrunk.namelist()) < len(complete.namelist()) / 2
    # The desktop's jar is last, so that only its native library is used.
    path = os.pathsep.join((str(tmp_path / "shrunk.jar"), str(jars.desktop)))
    command = ["java", "-Xmx1g", "-verbose:class", MAIN, str(tmp_path / "requests")]
    done = subprocess.run(command, env={**os.environ, "CLASSPATH": path}, capture_output=True, text=True)
    drawn = [line for line in done.stdout.splitlines() if line.endswith(" dB")]
    assert done.returncode == 0 and len(drawn) > 20, (drawn, done.stderr)
    assert not any("onnxruntime-" in line for line in done.stdout.splitlines() if "source: " in line)
