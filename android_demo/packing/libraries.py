"""The AARs of the engines, compared with their digests, and the parts of them that an APK needs."""

import hashlib
import subprocess
import tarfile
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.progress import Progress

ABI = "arm64-v8a"
PINNED = Path(__file__).with_name("libraries.toml")


@dataclass(frozen=True, eq=False)
class Library:
    """An entry of libraries.toml. `libraries`: the alignment of each library's load segments in bytes. The AAR is at
    `maven`, or in the package `npm` as the file `member`."""

    name: str
    sha256: str
    libraries: Mapping[str, int]
    maven: str | None = None
    npm: str | None = None
    member: str | None = None


def read_pinned(path: Path = PINNED) -> list[Library]:
    """Return the entries of libraries.toml."""
    return [Library(name, **fields) for name, fields in tomllib.loads(path.read_text()).items()]


def find_aar(library: Library, from_maven: Iterable[Path], cache: Path, progress: Progress) -> Path:
    """Return the AAR of `library`: the pinned one of Maven's files, or, for a package of npm, the copy in the folder
    `cache`, downloaded if there is none. Raises UserError if it is missing, cannot be downloaded, or has another
    digest than the pinned one; such a file is not kept."""
    if library.maven is not None:
        _, artifact, version = library.maven.split(":")
        found = [path for path in from_maven if path.name == f"{artifact}-{version}.aar"]
        if not found:
            raise UserError(f"{PINNED.name} pins {library.maven}, which packing/pom.xml does not name")
        _compare(library, found[0].read_bytes())
        return found[0]
    kept = cache / f"{library.name}-{library.sha256[:16]}.aar"
    if not kept.exists():
        progress(f"fetching {library.npm}")
        raw = _from_npm(library)
        _compare(library, raw)
        cache.mkdir(parents=True, exist_ok=True)
        arriving = kept.with_suffix(".arriving")
        arriving.write_bytes(raw)
        arriving.rename(kept)
    _compare(library, kept.read_bytes())
    return kept


def native_libraries(library: Library, aar: Path) -> dict[str, bytes]:
    """Return the arm64 libraries of an AAR by file name. Raises UserError if they are not the pinned ones."""
    with ZipFile(aar) as opened:
        prefix = f"jni/{ABI}/"
        found = {name.removeprefix(prefix): name for name in opened.namelist() if name.startswith(prefix)}
        found.pop("", None)
        if found.keys() != library.libraries.keys():
            raise UserError(
                f"{aar} has the libraries {', '.join(sorted(found))}, and {PINNED.name} lists others: correct it"
            )
        return {name: opened.read(member) for name, member in sorted(found.items())}


def classes_jar(aar: Path) -> ZipFile:
    """Return the Java classes of an AAR."""
    with ZipFile(aar) as opened:
        return ZipFile(BytesIO(opened.read("classes.jar")))


def _from_npm(library: Library) -> bytes:
    assert library.npm is not None and library.member is not None
    with TemporaryDirectory() as scratch:
        command = ["npm", "pack", "--silent", library.npm]
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True)
        if done.returncode:
            said = (done.stdout + done.stderr).strip().splitlines() or [""]
            raise UserError(f"cannot fetch {library.npm} by npm: {said[0]}")
        (packed,) = Path(scratch).glob("*.tgz")
        with tarfile.open(packed) as archive:
            member = archive.extractfile(library.member)
            assert member is not None
            return member.read()


def _compare(library: Library, raw: bytes) -> None:
    found = hashlib.sha256(raw).hexdigest()
    if found != library.sha256:
        raise UserError(
            f"{library.name} has the sha256 {found}, and {PINNED.name} pins {library.sha256}: remove the file"
        )
