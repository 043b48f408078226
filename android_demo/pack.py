"""Make the APK of the Android demo, with bundles in it, in one command:

    python -m android_demo.pack -o build/pocket-diffusion.apk BUNDLE [BUNDLE ...]

aapt compiles resources, Maven and R8 the classes; the engines' libraries come from their makers' AARs, pinned by
digest. The zip is aligned so that libraries can be mapped, and signed; then the file is read back and checked. The same
sources, bundles and key give the same bytes. The key is made if there is none, and kept in --home, like the files from
npm.
"""

import argparse
import hashlib
import shutil
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZIP_STORED, ZipFile

from android_demo.packing.archive import Entry, write_archive
from android_demo.packing.assets import bundle_assets
from android_demo.packing.checks import check_apk
from android_demo.packing.classes import ANDROID_DEMO, ask_maven, compile_modules, shrink, write_program
from android_demo.packing.libraries import ABI, Library, find_aar, native_libraries, read_pinned
from android_demo.packing.licences import licence_assets
from android_demo.packing.signing import find_key, sign
from android_demo.resources import compile_resources
from pocketdiffusion.cli.console import print_line, run, show_progress
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.progress import Progress

HOME = Path("~/.local/share/pocketdiffusion")
PROGRAMS = {  # each program that packing runs, and the Debian package that has it
    "aapt": "aapt",
    "apksigner": "apksigner",
    "dexdump": "dexdump",
    "java": "openjdk-17-jdk-headless",
    "keytool": "openjdk-17-jdk-headless",
    "mvn": "maven",
    "npm": "npm",
}


def pack(bundles: list[Path], out: Path, home: Path, *, compiled: bool, offline: bool, progress: Progress) -> str:
    """Write the APK `out` with `bundles` in it, and return a sentence with its size, bundles and digest.

    Raises UserError if a program is missing, something cannot be downloaded or compiled, or the app cannot run a
    bundle. Raises ProofError if a bundle did not pass, or the APK fails a check.
    """
    check_programs()
    maven = ["-o"] if offline else []
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if not compiled:
            progress("compiling")
            compile_modules(maven)
        progress("resources")
        resources = compile_resources(folder / "resources")
        check_numbers(folder / "resources")
        progress("libraries")
        jars = ask_maven(maven, folder)
        aars = {library: find_aar(library, jars.aars, home / "aars", progress) for library in read_pinned()}
        progress("R8")
        write_program(folder / "program.jar", jars.program, aars.values())
        shrink(jars, folder / "program.jar", folder / "dex.zip")
        progress("packing")
        entries = (*of_archive(resources), *of_archive(folder / "dex.zip"), *of_libraries(aars))
        assets = (*licence_assets(aars, jars.desktop), *chain.from_iterable(map(bundle_assets, bundles)))
        write_archive(folder / "unsigned.apk", (*entries, *assets))
        progress("signing")
        sign(folder / "unsigned.apk", folder / "signed.apk", find_key(home))
        progress("checks")
        segments = {name: size for library in aars for name, size in library.libraries.items()}
        described = check_apk(folder / "signed.apk", segments)
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder / "signed.apk", out)
    digest = hashlib.sha256(out.read_bytes()).hexdigest()
    packed = ", ".join(folder.name for folder in bundles) or "no bundle"
    sizes = f"{out.stat().st_size / 1e6:.1f} MB, {len(described.classes)} classes"
    return f"{out}: {sizes}, with {packed}; sha256 {digest}"


def check_programs() -> None:
    """Raise UserError if a program that packing runs is missing."""
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        packages = " ".join(sorted({PROGRAMS[name] for name in missing} | {"android-framework-res"}))
        raise UserError(f"packing needs {', '.join(missing)}: apt-get install --no-install-recommends {packages}")


def check_numbers(resources: Path) -> None:
    """Raise UserError if the app was compiled with other resource numbers (R.java) than those in `resources`."""
    table = "java/pocketdiffusion/app/R.java"
    compiled = ANDROID_DEMO / "app/target/android" / table
    if not compiled.exists() or compiled.read_bytes() != (resources / table).read_bytes():
        raise UserError("the app was compiled with other resources than the present ones: leave out --compiled")


def of_archive(path: Path) -> Iterator[Entry]:
    """Yield the entries of a zip, sorted by name. Entries that the zip stores, and resources.arsc, which Android
    maps, are stored."""
    with ZipFile(path) as archive:
        for info in sorted(archive.infolist(), key=lambda info: info.filename):
            stored = info.compress_type == ZIP_STORED or info.filename == "resources.arsc"
            yield Entry(info.filename, archive.read(info), stored)


def of_libraries(aars: Mapping[Library, Path]) -> Iterator[Entry]:
    """Yield the native libraries of all AARs."""
    for library, aar in aars.items():
        for name, data in native_libraries(library, aar).items():
            yield Entry(f"lib/{ABI}/{name}", data, stored=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m android_demo.pack", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("build/pocket-diffusion.apk"), metavar="APK")
    parser.add_argument(
        "--home", type=Path, default=HOME, metavar="FOLDER", help=f"folder of the key and the AARs; default: {HOME}"
    )
    parser.add_argument("--compiled", action="store_true", help="use the classes that mvn verify compiled")
    parser.add_argument("--offline", action="store_true", help="do not let Maven download anything")
    parser.add_argument("bundles", type=Path, nargs="*", metavar="BUNDLE")
    given = parser.parse_args()
    bundles = [folder.resolve() for folder in given.bundles]

    def command() -> None:
        with show_progress(f"packing {given.output}", log=True) as step:
            options = {"compiled": given.compiled, "offline": given.offline}
            done = pack(bundles, given.output, given.home.expanduser(), **options, progress=step)
        print_line(done)

    run(command)


if __name__ == "__main__":
    main()
